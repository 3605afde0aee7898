"""How the processes of a run are arranged: along ``data`` they share batches, along ``context`` a clip's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from filmstrip.distributed import process
from filmstrip.distributed.ring import Ring
from filmstrip.errors import UserError
from filmstrip.protocols import SharesContext

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


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


def share_context(objective: nn.Module, mesh: Mesh, connected: DeviceMesh | None) -> None:
    """Hand an objective the ring along which it attends, if several processes share the tokens of its clips.

    Raises:
        UserError: it cannot share them.
    """
    if mesh.context.size == 1 or connected is None:
        return
    if not isinstance(objective, SharesContext):
        raise UserError(
            f"train.context {mesh.context.size} shares the tokens of a clip among processes, and the attention of "
            f"{type(objective).__name__} stays within one (it has no use_ring): leave train.context at 1, so that "
            "processes share the clips of a batch"
        )
    objective.use_ring(Ring(connected.get_group("context")))
