"""Which process this is, of how many; everything here also works when there is only one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def is_several() -> bool:
    """Whether this process trains together with others, and they are connected."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, from zero; known before the processes are connected, from what ``torchrun`` says."""
    return dist.get_rank() if is_several() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if is_several() else int(os.environ.get("WORLD_SIZE", 1))


def wait_for_all() -> None:
    """Return when every process has got here."""
    if is_several():
        dist.barrier()


def in_turn(action: Callable[[], None]) -> None:
    """Let each process do something while the others wait, in the order of their ranks."""
    for turn in range(world_size()):
        if turn == rank():
            action()
        wait_for_all()


def from_all(value: Value) -> list[Value]:
    """Every process's ``value``, by rank: anything that can be pickled, tensors on the CPU."""
    if not is_several():
        return [value]
    values: list[Value] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def stack_over_processes(tensor: Tensor, device: torch.device) -> Tensor:
    """Every process's ``tensor`` (all of one shape), stacked along a new first axis, on the CPU.

    ``device`` is where the processes exchange tensors.
    """
    if not is_several():
        return tensor.cpu()[None]
    local = tensor.to(device)
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local)
    return torch.stack(parts).cpu()
