"""What labelling tools export of films: parts with a label, and boxes of what is followed through frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filmstrip.data.annotations.files import read_json
from filmstrip.data.detection.types import Box
from filmstrip.errors import UserError


@dataclass(frozen=True)
class Segment:
    """A part of a film with a label; all of it where ``start`` and ``end`` are None."""

    film: str
    """Name of the film as the export has it; empty where it has none."""
    label: str
    start: float | None = None
    end: float | None = None
    in_frames: bool = False
    """Whether start and end are numbers of frames, from 0 on, the end being the first frame that is outside;
    otherwise they are seconds."""


@dataclass(frozen=True)
class KeyBox:
    """The box of what is followed, in one frame."""

    film: str
    """Name of the film as the export has it; empty where it has none."""
    label: str
    track: int
    """Number of what is followed, unique in its film."""
    at: float
    """Frame, from 0 on, or second."""
    in_frames: bool
    """Whether ``at`` is a frame."""
    box: Box


@dataclass(frozen=True)
class Export:
    """The contents of an exported file."""

    segments: tuple[Segment, ...] = ()
    boxes: tuple[KeyBox, ...] = ()


def read_export(path: Path) -> Any:
    """The contents of an exported JSON file.

    Raises:
        UserError: it is not there, or not JSON.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: provide the file that was exported")
    return read_json(path)


def one_of(path: Path, names: set[str], wanted: str, kind: str) -> str:
    """The name by which an export labels films: the one that is wanted, or the only one.

    Raises:
        UserError: there is no such name, or there are several and none is wanted.
    """
    listed = ", ".join(map(repr, sorted(names)))
    if wanted and wanted not in names:
        raise UserError(f"{path} has no {kind} {wanted!r} that labels any film; it has {listed}")
    if not wanted and len(names) > 1:
        raise UserError(f"{path} labels films by {listed}: say by which {kind} (--attribute NAME)")
    return wanted or next(iter(names))


def runs(frames: Iterable[int], step: int = 1) -> Iterator[tuple[int, int]]:
    """The first frame of each run of frames that follow each other at ``step``, and the frame after its last."""
    first = last = None
    for frame in sorted(set(frames)):
        if first is None or last is None:
            first = frame
        elif frame - last > step:
            yield first, last + step
            first = frame
        last = frame
    if first is not None and last is not None:
        yield first, last + step


def shown(frames: Sequence[tuple[int, bool]], end: int | None = None) -> Iterator[tuple[int, int]]:
    """The spans in which something is followed: its key frames in order, each with whether it is shown from there on;
    the last span ends at frame ``end``, by default after the last key frame."""
    first = None
    for frame, is_shown in frames:
        if is_shown and first is None:
            first = frame
        elif not is_shown and first is not None:
            yield first, frame
            first = None
    if first is not None:
        last = frames[-1][0] + 1
        yield first, max(first + 1, last if end is None else end)


def within(left: float, top: float, right: float, bottom: float) -> Box | None:
    """A box cut to the frame, its sides as fractions of it; None where nothing is left."""
    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in (left, top, right, bottom))
    return (left, top, right, bottom) if left < right and top < bottom else None
