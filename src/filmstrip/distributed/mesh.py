"""How the processes of a run are arranged: along ``data`` they share batches, along ``context`` a clip's tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from filmstrip.distributed import process
from filmstrip.distributed.ring import Ring
from filmstrip.errors import UserError
from filmstrip.protocols import SharesContext, SharesRows, SharesTokens

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

log = logging.getLogger(__name__)


class Axis(NamedTuple):
    """The place of this process along one axis."""

    rank: int
    size: int


_ALONE = Axis(0, 1)


@dataclass(frozen=True)
class Mesh:
    """The arrangement of all processes, neighbouring ranks along ``context``; by default a single one.

    The loader takes the share of ``data``: processes that differ in ``context`` alone read the same batches,
    with the same random numbers, and their objectives return the loss of the whole batch.
    """

    data: Axis = _ALONE
    context: Axis = _ALONE

    @classmethod
    def of_processes(cls, context: int = 1) -> Mesh:
        """All processes, in groups of ``context`` that share a batch; also before they are connected.

        Raises:
            UserError: their number is not a multiple of ``context``.
        """
        rank, world = process.rank(), process.world_size()
        if world % context:
            raise UserError(
                f"train.context {context} arranges processes in groups of as many, and this run has {world}: start a "
                f"multiple of {context} (torchrun --nproc-per-node), or leave train.context at 1"
            )
        return cls(Axis(rank // context, world // context), Axis(rank % context, context))

    def connect(self, device: torch.device) -> DeviceMesh | None:
        """Torch's mesh with the axes ``data`` and ``context``, for communication along one of them.

        None with a single process; otherwise every process must call it, once they are connected.
        """
        if not process.is_several():
            return None
        from torch.distributed.device_mesh import init_device_mesh

        sizes = (self.data.size, self.context.size)
        return init_device_mesh(device.type, sizes, mesh_dim_names=("data", "context"))


def share_context(
    objective: nn.Module,
    mesh: Mesh,
    connected: DeviceMesh | None,
    blocks: Sequence[nn.Module] = (),
    *,
    striped: bool = False,
) -> None:
    """Let the processes of a context share the tokens of an objective's clips, if there are several.

    It is handed the ring along which it attends; or else those of its network's ``blocks`` share their tokens that
    can. ``striped``: a process has every so many tokens of a row, in place of adjacent ones.

    Raises:
        UserError: they cannot share them.
    """
    if mesh.context.size == 1 or connected is None:
        return
    asked, alone = f"train.context {mesh.context.size}", "leave train.context at 1, so that processes share the clips"
    if any(isinstance(part, SharesRows) for part in objective.modules()):
        raise UserError(
            f"{asked} shares the tokens of a clip among processes that read the same clips, and the loss of "
            f"{type(objective).__name__} compares a clip with those of all processes: {alone} of a batch"
        )
    ring = Ring(connected.get_group("context"), striped=striped)
    if isinstance(objective, SharesContext):
        objective.use_ring(ring)
        return
    if any(block._compiled_call_impl is not None for block in blocks):
        raise UserError(
            f"{asked} exchanges tokens before and after each block, which train.compile cannot compile: leave one out"
        )
    left = [block for block in blocks if not (isinstance(block, SharesTokens) and block.share_tokens(ring))]
    if len(left) == len(blocks):
        kinds = ", ".join(sorted({type(block).__name__ for block in left})) or "no blocks"
        raise UserError(
            f"{asked} shares the tokens of a clip among processes, and those of {type(objective).__name__} cannot be "
            f"shared ({kinds}). Language models (language.*) can, and networks of plain transformer blocks, such as "
            f"VideoMAE's, ViViT's joint one or VideoGPT: {alone} of a batch"
        )
    if left and mesh.context.rank == mesh.data.rank == 0:
        log.warning(
            "of %d blocks processes share the tokens of %d: %s are computed whole by each",
            len(blocks),
            len(blocks) - len(left),
            ", ".join(sorted({type(block).__name__ for block in left})),
        )
