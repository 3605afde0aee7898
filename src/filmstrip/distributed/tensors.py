"""Sharded tensors to whole ones and back. Tensors that are not sharded pass through."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

from filmstrip.distributed import process

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a part; every process must call this."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole copies on the CPU, in the first process; nothing in the others, which must call it too."""
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if process.rank() == 0:
            kept[name] = full.to("cpu", copy=True).contiguous()
    return kept


def sharded_like(tensor: Tensor, target: Tensor) -> Tensor:
    """This process's share of a whole ``tensor``, laid out as ``target`` is and on its device.

    Every process must hold the same ``tensor``: nothing is sent.
    """
    tensor = tensor.to(target.device)
    if _is_sharded(target):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor, target.device_mesh, target.placements, src_data_rank=None)
    return tensor


def _is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a DTensor. Their module is slow to import, and where nobody imported it there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)
