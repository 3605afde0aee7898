"""In-place collectives on small tensors; no-ops with a single process."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn


def sum_over_processes(tensor: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """All-reduce: the sum of ``tensor`` over the processes of a group (by default all), in place; not
    differentiable."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor, group=group)
    return tensor


def from_first_process(tensor: Tensor) -> Tensor:
    """Broadcast ``tensor`` from the first process, in place."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


def buffers_from_first_process(module: nn.Module) -> None:
    """Broadcast buffers from the first process, as DDP does before each step: norm statistics differ after it."""
    for buffer in module.buffers():
        from_first_process(buffer)
