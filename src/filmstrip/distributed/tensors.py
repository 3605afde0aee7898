"""Sharded tensors to whole ones and back. Tensors that are not sharded pass through."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from filmstrip.distributed import process


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a part; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


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
    if isinstance(target, DTensor):
        return distribute_tensor(tensor, target.device_mesh, target.placements, src_data_rank=None)
    return tensor
