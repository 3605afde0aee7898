"""How metrics of single frames are called: the points of a curve, ``NAME/frame_000`` and on."""

from __future__ import annotations

import re
from typing import NamedTuple

_POINT = re.compile(r"(?P<curve>.+)/frame_(?P<frame>\d{3,})")


class Point(NamedTuple):
    """One value of a curve."""

    curve: str
    """The metric's name."""
    frame: int
    """Counted from 0."""


def name_of(curve: str, frame: int) -> str:
    """What the value of a curve at a frame is called."""
    return f"{curve}/frame_{frame:03d}"


def point_of(name: str) -> Point | None:
    """Which point of which curve a name is of; none for every other name, whatever stands in it."""
    found = _POINT.fullmatch(name)
    return Point(found["curve"], int(found["frame"])) if found else None
