"""Rank, world size and collectives; everything also works with a single process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def is_several() -> bool:
    """Whether this process is one of several in an initialised process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The rank of this process; before initialisation, from ``torchrun``'s environment."""
    return dist.get_rank() if is_several() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if is_several() else int(os.environ.get("WORLD_SIZE", 1))


def wait_for_all() -> None:
    """Wait until every process has reached this point."""
    if is_several():
        dist.barrier()


def in_turn(action: Callable[[], None]) -> None:
    """Execute ``action`` in one process after another, by rank."""
    for turn in range(world_size()):
        if turn == rank():
            action()
        wait_for_all()


def from_all(value: Value) -> list[Value]:
    """The ``value`` of every process, by rank: any picklable object, with tensors on the CPU."""
    if not is_several():
        return [value]
    values: list[Value] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def stack_over_processes(tensor: Tensor, device: torch.device) -> Tensor:
    """The ``tensor`` of every process (all of one shape), stacked along a new first axis, on the CPU.

    ``device``: the device for communication.
    """
    if not is_several():
        return tensor.cpu()[None]
    local = tensor.to(device)
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local)
    return torch.stack(parts).cpu()
