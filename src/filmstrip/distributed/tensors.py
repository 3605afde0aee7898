"""Conversion between sharded and full tensors. Tensors that are not sharded pass through."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from filmstrip.distributed import process


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of a possibly sharded one; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


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
    if isinstance(target, DTensor):
        return distribute_tensor(tensor, target.device_mesh, target.placements, src_data_rank=None)
    return tensor
