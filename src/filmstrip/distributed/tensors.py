"""Conversion between sharded and full tensors. Tensors that are not sharded pass through."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

from filmstrip.distributed import process

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a possibly sharded one; every process must call this."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Full copies on the CPU, in the first process; empty in the others, which must call it too."""
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if process.rank() == 0:
            kept[name] = full.to("cpu", copy=True).contiguous()
    return kept


def sharded_like(tensor: Tensor, target: Tensor) -> Tensor:
    """This process's shard of a full ``tensor``, with the layout and device of ``target``.

    Every process must hold the same ``tensor``: there is no communication.
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
