"""What the training loop saves to: all that it knows of a run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from filmstrip.protocols import Objective

if TYPE_CHECKING:
    from filmstrip.data.reading.dataset import Unreadable


class SavedState(NamedTuple):
    """An intact state."""

    tensors: Path
    """A safetensors file."""
    values: dict[str, Any]
    """``step`` and the other values saved with the tensors."""


class Store(Protocol):
    """Where a run is saved. Every process calls its methods; only the first one writes."""

    path: Path
    """The folder of the run, in which trackers keep what they need."""

    def newest_state(self) -> SavedState | None:
        """The newest intact state, the same in all processes, or none if there are no states.

        Raises:
            UserError: every state is damaged.
        """
        ...

    def write_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Add a state, whose ``values`` include its ``step``; only the first process holds ``tensors``."""
        ...

    def save_weights(self, objective: Objective, *, last: bool = False) -> None:
        """Write the current weights as those that others load; or, beside these, as those of the ``last`` step."""
        ...

    def read_weights(self) -> dict[str, Tensor]:
        """The weights that others load, in every process."""
        ...

    def evaluated(self, metric: str, until: int) -> list[tuple[int, float]]:
        """The steps up to ``until`` at which an evaluation in training recorded a metric, with its values; the same
        in every process."""
        ...

    def write_environment(self, device: torch.device) -> None:
        """Write versions, device and number of processes."""
        ...

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add values of a step."""
        ...

    def forget_metrics_after(self, step: int) -> None:
        """Remove the values of later steps, which will be repeated."""
        ...

    def write_unreadable(self, entries: Iterable[Unreadable]) -> None:
        """Add this process's unreadable files."""
        ...
