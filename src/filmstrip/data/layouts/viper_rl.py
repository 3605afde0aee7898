"""Films of experts as VIPER's authors released them (Escontrela et al. 2023, ``viper_rl``): an array each.

    dmc/walker_walk/train/00000.npz    arr_0 (T H W 3 uint8), and test/
    train/00000.npz                    of one task alone

Tasks become classes. There are neither actions nor rewards. ``mask_map.pkl``, which blanks scoreboards there, is a
pickle and is not read: blank them with ``--data.blanked``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from filmstrip.data.layouts.arrays import Episode, frames
from filmstrip.errors import UserError

SPLITS = ("train", "test")
FPS = 10.0
"""Frame rate of the videos: the arrays have none, and this is that of ``filmstrip rl record``."""
ARRAY = "arr_0"


def detect_arrays(root: Path) -> bool:
    """Whether there are films in the training part of a task; actions beside videos are arrays, too."""
    found = next((path for place in ("", "*/") for path in root.glob(f"{place}train/*.npz")), None)
    try:
        return found is not None and f"{ARRAY}.npy" in zipfile.ZipFile(found).namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def array_files(root: Path) -> list[tuple[str, Path]]:
    """The files, each with its split, or with split and task.

    Raises:
        UserError: there are none.
    """
    alone = [(split, path) for split in SPLITS for path in sorted(root.glob(f"{split}/*.npz"))]
    several = [(split, path) for split in SPLITS for path in sorted(root.glob(f"*/{split}/*.npz"))]
    files = alone + [(f"{split}/{path.parts[-3]}", path) for split, path in several]
    if not files:
        raise UserError(f"{root} is not laid out as viper_rl's films: expected walker_walk/train/00000.npz")
    return files


def read_arrays(path: Path) -> Iterator[Episode]:
    """The one film of a file.

    Raises:
        ValueError, OSError: it cannot be read, or has no film.
    """
    with np.load(path, allow_pickle=False) as values:
        if ARRAY not in values.files:
            raise ValueError(f"it has no array '{ARRAY}', but {', '.join(map(repr, values.files)) or 'none'}")
        video = frames(values[ARRAY])
    yield Episode(path.stem, video, None)
