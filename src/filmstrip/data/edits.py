"""Edits of videos: what is to become of each, in words, with the true result where it is known.

``edits.csv`` has a row for each edit: ``video``, ``source_prompt``, ``edit_prompt``, ``type``, and optionally
``edited_first_frame`` (an image) and ``target`` (the true edited video). Paths are relative to the table.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filmstrip.bounds import AnyNumber, PositiveShare, Share, check_numbers
from filmstrip.errors import UserError

TYPES = ("style", "background", "object", "motion", "multi_spatial", "multi_motion")
"""Types of edits: of the look of the whole video, what is behind, what is in it, how it moves, several of the
first three, or one of them and how it moves."""
MOVING = ("motion", "multi_motion")
"""Edits that change how things move, which the motion of the source must not decide."""
FRAMES: dict[str, Literal["source", "prompt_to_prompt", "sdedit"]] = {
    "style": "prompt_to_prompt",
    "background": "prompt_to_prompt",
    "object": "prompt_to_prompt",
    "motion": "source",
    "multi_spatial": "sdedit",
    "multi_motion": "sdedit",
}
"""Method of editing the first frame, by type (MoCA, section 7.2; of ``multi_motion`` it says nothing)."""
TABLE = "edits.csv"
_COLUMNS = ("video", "source_prompt", "edit_prompt", "type")


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One edit of one video."""

    video: Path
    source_prompt: str
    """Text of what the video shows."""
    edit_prompt: str
    """Text of what the edited video is to show."""
    type: str
    """Type of the edit, one of :data:`TYPES`."""
    edited_first_frame: Path | None = None
    """Image of the first frame as it is to be."""
    target: Path | None = None
    """The true edited video, of synthetic edits."""


@dataclass(frozen=True, kw_only=True)
class FrameEditing:
    """Settings of editing a frame."""

    cross_share: Share = 0.8
    """Share of the steps in which attention to the text follows the source's (Prompt-to-Prompt)."""
    self_share: Share = 0.4
    """Share of the steps in which attention within the frame follows the source's (Prompt-to-Prompt)."""
    strength: PositiveShare = 0.6
    """Share of the noise that is added and taken away again (SDEdit): little keeps the frame, much follows the
    text."""
    guidance: AnyNumber = 7.5
    """Scale of guidance by the text."""

    def __post_init__(self) -> None:
        check_numbers(self)


def edit_type(name: str) -> str:
    """A type of edit by its name, whose words may be joined by hyphens.

    Raises:
        UserError: there is none of this name; names the nearest.
    """
    found = name.strip().lower().replace("-", "_").replace(" ", "_")
    if found not in TYPES:
        close = difflib.get_close_matches(found, TYPES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}?" if close else "use one of the others"
        raise UserError(f"there is no type of edit {name!r}; {hint} There are {', '.join(TYPES)}")
    return found


def read_edits(path: Path) -> list[Edit]:
    """The edits of a table, or of a folder with an ``edits.csv``.

    Raises:
        UserError: there is no such table, it lacks a column, a cell is empty, or a type is unknown; names the row.
    """
    path = Path(path).expanduser()
    table = path / TABLE if path.is_dir() else path
    if not table.is_file():
        raise UserError(f"{path} holds no edits: expected a folder with {TABLE}, or such a table")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(
                f"{table} lacks the columns {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}"
            )
        rows = list(enumerate(reader, 2))
    if not rows:
        raise UserError(f"{table} has no rows")
    return [_edit(table, number, row) for number, row in rows]


def _edit(table: Path, number: int, row: dict[str, str | None]) -> Edit:
    if empty := [name for name in _COLUMNS if not (row[name] or "").strip()]:
        raise UserError(f"{table}, row {number}: {', '.join(empty)} is empty")
    try:
        kind = edit_type(str(row["type"]))
    except UserError as error:
        raise UserError(f"{table}, row {number}: {error}") from None

    def place(name: str) -> Path | None:
        cell = (row.get(name) or "").strip()
        return table.parent / cell if cell else None

    return Edit(
        video=table.parent / str(row["video"]).strip(),
        source_prompt=str(row["source_prompt"]).strip(),
        edit_prompt=str(row["edit_prompt"]).strip(),
        type=kind,
        edited_first_frame=place("edited_first_frame"),
        target=place("target"),
    )
