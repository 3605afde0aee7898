"""THUMOS14 (Idrees et al. 2017): sports in untrimmed videos, 20 classes of action with their times.

The annotated videos are those of the validation set, which one trains on, and of the test set. They come as the
tables ``val_Annotation.csv`` and ``test_Annotation.csv``, or as one JSON file in the layout of ActivityNet.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from filmstrip.data.annotations.activitynet import read_database
from filmstrip.data.annotations.files import find, maybe
from filmstrip.data.procedures.types import Annotations, Procedure, Step, distinct, in_order
from filmstrip.errors import UserError

TABLES = {"train": "val_Annotation.csv", "test": "test_Annotation.csv"}
DATABASES = ("thumos14.json", "thumos_gt.json")
AMBIGUOUS = "Ambiguous"
"""Label of ambiguous segments, which are not actions of any class."""
FALSELY_ANNOTATED = frozenset({"video_test_0000270", "video_test_0001496"})
"""Test videos whose annotations are wrong, which published evaluations leave out."""


def read_thumos14(root: Path) -> Annotations:
    """THUMOS14's annotations in ``root``; its validation set is ``train``.

    Raises:
        UserError: a file is missing or invalid.
    """
    database = maybe(root, *DATABASES)
    if database is not None and maybe(root, TABLES["train"]) is None:
        return read_database(database, without=FALSELY_ANNOTATED, ambiguous=AMBIGUOUS)
    found = {split: _read_table(find(root, name)) for split, name in TABLES.items()}
    classes = tuple(sorted({row[0] for videos in found.values() for rows in videos.values() for row in rows}))
    procedures = tuple(
        Procedure(
            video=video,
            split=split,
            steps=distinct(in_order([Step(classes.index(name), start, end) for name, start, end, _ in rows])),
            fps=_frame_rate([(end, last) for _, _, end, last in rows]),
        )
        for split, videos in found.items()
        for video, rows in videos.items()
    )
    return Annotations(root=root, steps=classes, tasks=(), procedures=procedures)


def _read_table(path: Path) -> dict[str, list[tuple[str, float, float, int]]]:
    """The actions of each video: class, first and last second, last frame."""
    videos = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["type"] != AMBIGUOUS and row["video"] not in FALSELY_ANNOTATED:
                    action = (row["type"], float(row["start"]), float(row["end"]), int(row["endFrame"]))
                    videos[row["video"]].append(action)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a table of THUMOS14 (video, type, start, end, endFrame): {error!r}") from None
    return videos


def _frame_rate(ends: list[tuple[float, int]]) -> float:
    """Frames a second, from where the last action ends, in seconds and in frames; the tables do not say it."""
    seconds, frames = max(ends)
    return float(round(frames / seconds))
