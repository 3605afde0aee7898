"""Places of the grid over which a language model is asked for needles, and the names of their values."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Unit = Literal["tokens", "frames"]
"""Unit of lengths: tokens of texts, or frames of videos."""
_CELL = re.compile(r"found/(\d+)(_frames)?/(\d+)%")


class Cell(NamedTuple):
    """A place of the grid: the length of a text or a video, and the depth of the first needle that is asked for."""

    length: int
    depth: float
    unit: Unit = "tokens"

    @property
    def name(self) -> str:
        """Name of its value."""
        return f"{self.of_length}/{self.depth:.0%}"

    @property
    def of_length(self) -> str:
        """Name of the mean over all depths."""
        return f"found/{self.length}{'_frames' if self.unit == 'frames' else ''}"


def cell_of(name: str) -> Cell | None:
    """The place whose value has this name, if it is one's."""
    match = _CELL.fullmatch(name)
    return Cell(int(match[1]), int(match[3]) / 100, "frames" if match[2] else "tokens") if match else None
