"""One objective on several processes: replicated (DDP) or sharded (FSDP2), from outside, whatever the method."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, TypeGuard

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from filmstrip.distributed import process
from filmstrip.distributed.reduce import from_first_process, sum_over_processes
from filmstrip.distributed.ring import pass_on
from filmstrip.protocols import SharesRows, SharesStatistics

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


def parallelise(
    module: nn.Module,
    shard: Literal["none", "fsdp"],
    *,
    blocks: Sequence[nn.Module],
    device: torch.device,
    partial: bool,
    unsynchronised: Collection[str] = (),
) -> nn.Module:
    """A wrapper of ``module`` that averages gradients over processes; ``module`` itself if there is only one.

    With ``fsdp`` each of ``blocks`` is sharded separately and the rest together, in place; parameters become
    DTensors. ``partial``: a backward pass may not reach all parameters, as in the phases of a GAN. Parts that collect
    statistics of a step share them from then on, and losses that compare the rows of a batch compare those of all.
    Parameters and buffers named ``unsynchronised``, which are frozen and equal everywhere, are skipped.
    """
    if not process.is_several():
        return module
    for part in module.modules():
        if isinstance(part, SharesStatistics):
            part.share_statistics(sum_all=sum_over_processes, from_first=from_first_process)
        if isinstance(part, SharesRows):
            part.share_rows(pass_on, process.world_size(), process.rank())
    if shard == "none":
        devices = [device] if device.type == "cuda" else None
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, list(unsynchronised))
        return DistributedDataParallel(
            module, device_ids=devices, find_unused_parameters=partial, gradient_as_bucket_view=True
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name not in unsynchronised:
            from_first_process(tensor.data)
    ignored = {param for name, param in module.named_parameters() if name in unsynchronised}
    mesh = init_device_mesh(device.type, (process.world_size(),))
    for block in blocks:
        if not ignored.issuperset(block.parameters()):
            fully_shard(block, mesh=mesh, ignored_params=ignored)
    fully_shard(module, mesh=mesh, ignored_params=ignored)  # in place: its class becomes one of FSDP's
    return module


def is_sharded(module: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether FSDP shards its parameters. FSDP is slow to import, and where it is not imported nothing is sharded."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


@contextmanager
def gradients_stay_local(model: nn.Module, local: bool) -> Iterator[None]:
    """Without communication between processes in backward passes inside, for gradient accumulation."""
    if local and is_sharded(model):
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)
    else:
        with model.no_sync() if local and isinstance(model, DistributedDataParallel) else nullcontext():
            yield


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Inside the context, methods other than ``forward`` can be called: parameters outside the blocks are unsharded.

    Blocks gather their own weights when called.
    """
    if not is_sharded(module):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()
