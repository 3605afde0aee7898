"""Passing tensors from process to process along a ring, with gradients that travel back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from filmstrip.distributed import process
from filmstrip.distributed.reduce import sum_over_processes
from filmstrip.errors import UserError


class Ring:
    """The processes of a group (by default all), each of which sends to the next one.

    ``striped``: each has every so many of a row's tokens, in place of adjacent ones.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, *, striped: bool = False) -> None:
        self.group = group
        self.striped = striped
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def __deepcopy__(self, memo: Any) -> Ring:
        """The ring itself: a copy of a model, such as an average of its weights, is one of the same processes."""
        return self

    def start(self, tensors: Sequence[Tensor], steps: int = 1) -> Callable[[], list[Tensor]]:
        """Begin to send tensors to the process so many places further; the result waits for those that arrive here.

        Every process of the group must call it, with tensors of the same shapes, which must not change meanwhile.
        """
        sent = [tensor.contiguous() for tensor in tensors]
        received = [torch.empty_like(tensor) for tensor in sent]
        to, source = (self.rank + steps) % self.size, (self.rank - steps) % self.size
        exchange = [dist.P2POp(dist.isend, tensor, group=self.group, group_peer=to) for tensor in sent]
        exchange += [dist.P2POp(dist.irecv, tensor, group=self.group, group_peer=source) for tensor in received]
        works = dist.batch_isend_irecv(exchange)

        def arrived() -> list[Tensor]:
            for work in works:
                work.wait()
            sent.clear()  # they had to stay until now
            return received

        return arrived

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor of each process, without gradients."""
        return sum_over_processes(tensor.detach().clone(), self.group)

    def maximum(self, tensor: Tensor) -> Tensor:
        """The elementwise maximum of a tensor of each process, without gradients."""
        found = tensor.detach().clone()
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.group)
        return found

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each process, all of one shape, by rank, without gradients."""
        own = tensor.detach().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own, group=self.group)
        return parts


@contextmanager
def ring_of_all(size: int, option: str) -> Iterator[Ring | None]:
    """The ring of all processes that ``torchrun`` started, which are connected inside; none for a ``size`` of 1.

    Raises:
        UserError: there are more or fewer; ``option`` is what asked for them.
    """
    if size == 1:
        yield None
        return
    world = process.world_size()
    if world != size:
        raise UserError(
            f"{option} {size} shares tokens among {size} processes, and there are {world}: start as many "
            f"(torchrun --nproc-per-node {size} -m filmstrip ...)"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ring()
    finally:
        dist.destroy_process_group()


def pass_on(tensor: Tensor) -> Tensor:
    """Send ``tensor`` to the next process, and return that of the one before; every process must call it.

    Gradients of what was received go to the process that it came from. Tensors have the same shape everywhere.
    """
    return _PassOn.apply(tensor)  # type: ignore[no-any-return]  # torch does not say what it returns


class _PassOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return Ring().start([tensor], 1)()[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        return Ring().start([gradients[0]], -1)()[0]
