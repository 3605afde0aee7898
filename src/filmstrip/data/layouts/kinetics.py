"""Kinetics-400, -600 and -700 (Kay et al. 2017): tables of YouTube's videos, and files named after them.

    annotations/{train,val,test}.csv    label,youtube_id,time_start,time_end,split[,is_cc]
    train/0123456789a_000010_000020.mp4    or train/label/0123456789a_000010_000020.mp4

Files are ``youtube_id``, start and end in seconds with six digits; they may lie anywhere below the folder. What also
lies in ``replacement`` is taken from there: the copies of Kinetics-400 that are handed out come with 1,392 videos in
place of damaged ones.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from filmstrip.data.layouts.named import by_stem, leave_out_missing
from filmstrip.data.sample import Sample, Source, collect, number_names, read_notes
from filmstrip.errors import UserError

NEEDED = {"youtube_id", "time_start", "time_end"}
SPLITS = {"validate": "val", "validation": "val"}
"""Alternative names of splits."""


def detect(root: Path) -> bool:
    """Whether there is a table of that kind."""
    return next(_tables(root), None) is not None


def open_kinetics(root: Path) -> Source:
    """The splits ``train``, ``val`` and ``test`` as far as tables and files are there; test sets may lack labels.

    Raises:
        UserError: there are no tables, a row is invalid, or none of the videos exists.
    """
    rows = [row for table in _tables(root) for row in _rows(table)]
    if not rows:
        raise UserError(
            f"{root} is not laid out as Kinetics: expected annotations/train.csv with the columns label, youtube_id, "
            "time_start, time_end and split, and files such as ID_000010_000020.mp4"
        )
    videos = by_stem(root) | by_stem(root / "replacement")
    found, missing = leave_out_missing(rows, lambda row: videos.get(row["stem"].lower()))
    if not found:
        raise UserError(f"{root} holds none of the {missing} videos of its tables, such as {rows[0]['stem']}.mp4")
    notes = read_notes(root)
    # Numbered over the whole tables: a class keeps its number, whichever of its videos could be had.
    classes, labels = number_names([row["label"] or None for row in rows], notes.classes, root)
    label_of = {id(row): label for row, label in zip(rows, labels)}
    samples = [
        Sample(path=str(file), name=f"{row['split']}/{row['stem']}", label=label_of[id(row)], split=row["split"])
        for row, file in found
    ]
    return collect(root, classes, samples, notes)


def _tables(root: Path) -> Iterator[Path]:
    for path in sorted([*root.glob("*.csv"), *root.glob("annotations/*.csv")]):
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            if set(next(csv.reader(file), [])) >= NEEDED:
                yield path


def _rows(table: Path) -> Iterator[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
            except (TypeError, ValueError):
                raise UserError(f"{table}, row {number}: time_start and time_end should be seconds") from None
            split = (row.get("split") or table.stem.split("_")[-1]).strip().lower()
            yield {
                "stem": f"{row['youtube_id'].strip()}_{start:06d}_{end:06d}",
                "label": (row.get("label") or "").strip(),
                "split": SPLITS.get(split, split),
            }
