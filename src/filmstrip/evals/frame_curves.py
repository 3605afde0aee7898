"""Names of per-frame metrics, the points of a curve: ``NAME/frame_000`` and so on."""

from __future__ import annotations

import re
from typing import NamedTuple

_POINT = re.compile(r"(?P<curve>.+)/frame_(?P<frame>\d{3,})")


class Point(NamedTuple):
    """One point of a per-frame curve."""

    curve: str
    """Name of the metric."""
    frame: int
    """Frame index, from 0."""


def name_of(curve: str, frame: int) -> str:
    """The metric name of a curve's value at a frame."""
    return f"{curve}/frame_{frame:03d}"


def point_of(name: str) -> Point | None:
    """The point that a metric name denotes; none for names that are not per-frame."""
    found = _POINT.fullmatch(name)
    return Point(found["curve"], int(found["frame"])) if found else None
