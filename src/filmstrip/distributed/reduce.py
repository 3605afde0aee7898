"""Agreement between processes on small tensors; each function does nothing when there is only one process."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of every process's ``tensor``, in place; not differentiable."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def from_first_process(tensor: Tensor) -> Tensor:
    """The first process's ``tensor``, in place in every other."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


def buffers_from_first_process(module: nn.Module) -> None:
    """Give every process the first one's buffers, as DDP does before each step: norms' statistics differ after it."""
    for buffer in module.buffers():
        from_first_process(buffer)
