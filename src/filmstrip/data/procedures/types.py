"""What annotations say of procedures, whatever set they come from."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filmstrip.errors import UserError


class Step(NamedTuple):
    """One step of a procedure, and when it is done."""

    step: int
    """Position in the set's steps."""
    start: float
    end: float
    """Seconds from the video's first frame."""


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """One annotated video: its steps in order of time."""

    video: str
    """The file's name, or its path below the folder of videos, with or without its ending."""
    split: str
    task: int = -1
    """Position in the set's tasks; -1 where it has none."""
    steps: tuple[Step, ...]
    seconds: float | None = None
    """How long the video lasts, where the annotations say."""
    fps: float | None = None
    """Its frames a second, where the annotations say."""


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A set of procedures, and what its steps and tasks are called."""

    root: Path
    steps: tuple[str, ...]
    tasks: tuple[str, ...]
    procedures: tuple[Procedure, ...]

    def split(self, name: str) -> tuple[Procedure, ...]:
        """The procedures of one split, in the order of the annotations."""
        return tuple(procedure for procedure in self.procedures if procedure.split == name)


def in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps in order of time; those that begin together stay as they were.

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
