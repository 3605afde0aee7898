"""Tables of edits of other layouts, converted into ours: ``edits.csv``, and a manifest of captioned videos."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filmstrip.data.annotations.loveu_tgve import LAYOUT, read_loveu_tgve
from filmstrip.data.edits import TABLE, Edit
from filmstrip.errors import UserError
from filmstrip.files import write_csv

EDITS: dict[str, Callable[[Path], list[Edit]]] = {LAYOUT: read_loveu_tgve}
"""Readers of tables of edits, by the name of the layout."""
_SHOWN = 5


@dataclass(frozen=True)
class ConvertedEdits:
    """What was written."""

    out: Path
    videos: int
    counts: Counter[str]
    """Number of edits of each type."""
    missing: tuple[str, ...]
    """Videos that are not there, whose edits are left out."""

    def text(self) -> str:
        """The report for people."""
        kinds = ", ".join(f"{kind.replace('_', '-')} ({count})" for kind, count in self.counts.items())
        lines = [f"{self.out / TABLE}: {self.counts.total()} edits of {self.videos} videos: {kinds}"]
        lines += [f"left out  {path}: it is not there" for path in self.missing[:_SHOWN]]
        if len(self.missing) > _SHOWN:
            lines.append(f"left out  {len(self.missing) - _SHOWN} more")
        return "\n".join([*lines, f"evaluate editors on it with --protocol video_edit --data {self.out}"])


def convert_edits(layout: str, path: Path, out: Path, *, videos: Path | None = None) -> ConvertedEdits:
    """Write the edits of a layout, and a manifest of their videos as a test split, into the folder ``out``.

    ``videos`` is a folder that holds the videos by their names, at any depth, where they are not at their places.
    Those that are nowhere are left out.

    Raises:
        UserError: ``path`` is not in the layout, ``out`` is a file, or none of the videos is there.
    """
    edits = EDITS[layout](path)
    if out.suffix or out.is_file():
        raise UserError(f"--out {out}: give a folder, for {TABLE} and the manifest of the videos")
    elsewhere = {file.name: file for file in sorted(videos.rglob("*.mp4"))} if videos is not None else {}
    places = {edit.video: elsewhere.get(edit.video.name, edit.video) for edit in edits}
    missing = [str(video) for video, place in places.items() if not place.is_file()]
    kept = [edit for edit in edits if places[edit.video].is_file()]
    if not kept:
        raise UserError(
            f"none of the {len(places)} videos is there, such as {missing[0]}: give their folder (--videos)"
        )
    relative = {video: os.path.relpath(place, out) for video, place in places.items()}
    rows = [
        {
            "video": relative[edit.video],
            "source_prompt": edit.source_prompt,
            "edit_prompt": edit.edit_prompt,
            "type": edit.type,
        }
        for edit in kept
    ]
    captions = {relative[edit.video]: edit.source_prompt for edit in kept}
    write_csv(rows, out / TABLE)
    write_csv(
        [{"path": path, "split": "test", "caption": caption} for path, caption in captions.items()],
        out / "manifest.csv",
    )
    return ConvertedEdits(out, len(captions), Counter(edit.type for edit in kept), tuple(missing))
