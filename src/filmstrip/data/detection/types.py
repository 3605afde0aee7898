"""What is annotated: who acts in a key frame, where, and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Moment = tuple[str, float]
"""A video and a second of it, as the annotations count."""


class Actor(NamedTuple):
    """Somebody in a key frame."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom, as shares of the frame's width and height."""
    classes: tuple[int, ...] = ()
    """What is done, as places in the set's classes, ascending."""
    person: int | None = None
    """The same number in the key frames of one video is the same person, where that is annotated."""
    score: float = 1.0
    """How sure a detector was of the box."""


Boxes = Mapping[Moment, tuple[Actor, ...]]
"""The actors of each key frame, in the order of the file; some have none."""


@dataclass(frozen=True, kw_only=True)
class ActorAnnotations:
    """A set of annotated key frames."""

    root: Path
    classes: tuple[str, ...]
    evaluated: frozenset[int]
    """Places of the classes that the set's evaluation looks at."""
    splits: Mapping[str, Boxes]
    excluded: frozenset[Moment]
    """Key frames that neither training nor evaluation looks at: their annotations are in doubt."""
    ids: Mapping[int, int]
    """From the numbers of classes in the files to their places."""
