"""Types of annotated key frames: actors, their boxes and their actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Moment = tuple[str, float]
"""A video and a time in it, in seconds as in the annotations."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in fractions of the frame's width and height."""


class Actor(NamedTuple):
    """An actor in a key frame."""

    box: Box
    """Box as left, top, right, bottom, in fractions of the frame's width and height."""
    classes: tuple[int, ...] = ()
    """Indices of the actor's classes, ascending."""
    person: int | None = None
    """Identity of the person within the video; None if it is not annotated."""
    score: float = 1.0
    """Confidence of the detector."""


Boxes = Mapping[Moment, tuple[Actor, ...]]
"""The actors of each key frame, in the order of the file; some have none."""


@dataclass(frozen=True, kw_only=True)
class ActorAnnotations:
    """A dataset of annotated key frames."""

    root: Path
    classes: tuple[str, ...]
    evaluated: frozenset[int]
    """Indices of the classes that the dataset's evaluation includes."""
    splits: Mapping[str, Boxes]
    excluded: frozenset[Moment]
    """Key frames excluded from training and evaluation because their annotations are unreliable."""
    ids: Mapping[int, int]
    """Mapping from class numbers in the files to class indices."""
