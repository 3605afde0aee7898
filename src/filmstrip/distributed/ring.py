"""Passing tensors from process to process along a ring, with gradients that travel back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from filmstrip.distributed.reduce import sum_over_processes


class Ring:
    """The processes of a group (by default all), each of which sends to the next one."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

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
