"""Types of annotated procedures, common to all datasets."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filmstrip.errors import UserError


class Step(NamedTuple):
    """One step of a procedure with its time."""

    step: int
    """Index of the step in the dataset's steps."""
    start: float
    end: float
    """End of the step, in seconds from the video's first frame."""


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """One annotated video: its steps in temporal order."""

    video: str
    """Name of the file, or its path below the folder of videos, with or without extension."""
    split: str
    task: int = -1
    """Index of the task in the dataset's tasks; -1 if there is none."""
    steps: tuple[Step, ...]
    seconds: float | None = None
    """Duration of the video in seconds, if annotated."""
    fps: float | None = None
    """Frame rate of the video, if annotated."""


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A dataset of procedures with the names of its steps and tasks."""

    root: Path
    steps: tuple[str, ...]
    tasks: tuple[str, ...]
    procedures: tuple[Procedure, ...]

    def split(self, name: str) -> tuple[Procedure, ...]:
        """The procedures of one split, in the order of the annotations."""
        return tuple(procedure for procedure in self.procedures if procedure.split == name)


def in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps in temporal order; those that begin together stay as they were.

    PDPP and SCHEMA keep the annotators' order, which is another one in 654 of COIN's 7,064 training videos.
    """
    return tuple(sorted(steps, key=lambda step: step.start))


def distinct(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps without those that say the same as an earlier one, to the millisecond."""
    return tuple({(s.step, round(s.start, 3), round(s.end, 3)): s for s in reversed(steps)}.values())[::-1]


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are unique: those that several steps share are told apart by their position."""
    uses = Counter(names)
    return tuple(name if uses[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))


def position(name: str, names: Sequence[str], where: object, kind: str = "step") -> int:
    """The position of a name among ``names``.

    Raises:
        UserError: it is not among them; names the nearest.
    """
    if name in names:
        return names.index(name)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {len(names)}"
    raise UserError(f"{where} does not list the {kind} {name!r}; {hint}")
