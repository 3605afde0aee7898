"""Regions of videos and images that phrases name: a file of JSON Lines beside the manifest.

    {"path": "train/00000.mp4", "regions": [{"phrase": "the big red square", "boxes": [[0.1, 0.2, 0.4, 0.5], ...]}]}

A box is left, top, right and bottom, as fractions of the frame; there is one for each frame of the file, or one for
all of them. Files of NarratedShapes have ``shapes`` in place of ``regions``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from filmstrip.errors import UserError

NAMES = ("regions.jsonl", "shapes.jsonl")
"""Names of such a file in a folder, in order of preference."""
_KEYS = ("regions", "shapes")


class Region(NamedTuple):
    """One region."""

    phrase: str
    boxes: np.ndarray
    """Boxes, of each frame or of all, ``T 4`` or ``1 4`` float32."""

    def at(self, numbers: tuple[int, ...]) -> np.ndarray:
        """The boxes in frames by their numbers in the file, ``N 4``; after its last box a region stays."""
        return self.boxes[np.minimum(numbers, len(self.boxes) - 1)]


def file_in(folder: Path) -> Path:
    """The file of regions in a folder.

    Raises:
        UserError: there is none.
    """
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None:
        raise UserError(
            f"{folder} has no regions: expected {NAMES[0]}, a line for each file with its path and its regions "
            '({"path": ..., "regions": [{"phrase": ..., "boxes": [[left, top, right, bottom], ...]}]}), or name the '
            "file (--data.reads.regions FILE)"
        )
    return found


def read_regions(path: Path) -> dict[str, tuple[Region, ...]]:
    """The regions of each file, by its path as it is written there.

    Raises:
        UserError: the file cannot be read, or a line is not as it should be; names the line.
    """
    found: dict[str, tuple[Region, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            named = next(row[key] for key in _KEYS if key in row)
            found[str(row["path"])] = tuple(_region(one) for one in named)
        except StopIteration:
            raise UserError(f"{path}, line {number}: it has no regions (a list, empty if there are none)") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: {type(error).__name__}: {error}") from None
    return found


def _region(row: Any) -> Region:
    phrase, boxes = str(row["phrase"]).strip(), np.asarray(row["boxes"], dtype=np.float32)
    if not phrase:
        raise ValueError("a phrase is empty")
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ValueError(f"boxes are a list of [left, top, right, bottom], got {boxes.shape}")
    if not (boxes >= 0).all() or not (boxes <= 1).all() or not (boxes[:, :2] <= boxes[:, 2:]).all():
        raise ValueError(f"boxes are fractions of the frame, left before right and top before bottom: {row['boxes']}")
    return Region(phrase, boxes)
