"""Places of the grid over which a language model is asked for needles, and the names of their values."""

from __future__ import annotations

import re
from typing import NamedTuple

_CELL = re.compile(r"found/(\d+)/(\d+)%")


class Cell(NamedTuple):
    """A place of the grid: the number of tokens of a text, and the depth of the first number that is asked for."""

    length: int
    depth: float

    @property
    def name(self) -> str:
        """Name of its value."""
        return f"found/{self.length}/{self.depth:.0%}"


def cell_of(name: str) -> Cell | None:
    """The place whose value has this name, if it is one's."""
    match = _CELL.fullmatch(name)
    return Cell(int(match[1]), int(match[2]) / 100) if match else None
