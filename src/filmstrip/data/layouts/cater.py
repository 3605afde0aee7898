"""CATER's localisation of the snitch (Girdhar & Ramanan 2020): rendered scenes and lists with the ball's last cell.

    CATER/videos/CATER_new_005748.avi      (or images/, as its generator names the folder)
    CATER/lists/localize/{train,val}.txt   each line: a video's path and the number of a cell

The plane from -3 to 3 along both axes is divided into 6 x 6 cells, ``number = 6 * row + column``; the label is the
cell of the golden ball in the last frame, where it is mostly out of sight. Lists hold the paths of the machine that
wrote them, so that videos are found by their file names. A cell is a place of the picture: nothing is ever mirrored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from filmstrip.data.layouts.named import by_stem, leave_out_missing
from filmstrip.data.sample import Sample, Source, collect, read_notes
from filmstrip.errors import UserError

CELLS = tuple(f"row {row} column {column}" for row in range(1, 7) for column in range(1, 7))
"""The classes, in the order of their numbers."""
FOLDERS = ("lists/localize", "localize")
SPLITS = ("train", "val")


def detect(root: Path) -> bool:
    """Whether the lists are there."""
    return _lists(root) is not None


def open_cater(root: Path) -> Source:
    """The splits ``train`` and ``val``.

    Raises:
        UserError: there are no lists, a line is not a path and a cell, or none of the videos exists.
    """
    lists = _lists(root)
    if lists is None:
        raise UserError(
            f"{root} is not laid out as CATER: expected lists/localize/train.txt, a video and its cell a line"
        )
    videos = by_stem(root)
    listed = [
        (split, *entry) for split in SPLITS if (path := lists / f"{split}.txt").is_file() for entry in _entries(path)
    ]
    found, missing = leave_out_missing(listed, lambda item: videos.get(PurePosixPath(item[1]).stem.lower()))
    if not found:
        raise UserError(f"{root} holds none of the {missing} videos that {lists} lists")
    samples = [Sample(path=str(file), name=file.name, label=cell, split=split) for (split, _, cell), file in found]
    return collect(root, CELLS, samples, replace(read_notes(root), directional=True))


def _lists(root: Path) -> Path | None:
    return next((root / name for name in FOLDERS if (root / name / "train.txt").is_file()), None)


def _entries(path: Path) -> list[tuple[str, int]]:
    """The paths and cells of a list."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, cell = line.strip().rpartition(" ")
        if not name or not cell.isdecimal() or int(cell) >= len(CELLS):
            raise UserError(
                f"{path}, line {number}: expected a video and a cell from 0 to {len(CELLS) - 1}, got {line!r}"
            )
        entries.append((name, int(cell)))
    return entries
