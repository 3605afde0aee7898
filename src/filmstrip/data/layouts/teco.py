"""The layout of TECO's sets (Yan et al. 2023): DMLab as arrays, Minecraft and Habitat as video with actions.

    dmlab/train/0/000000.npz       video (T H W 3 uint8) and actions (T)
    minecraft/train/0/000000.mp4   and 000000.npz with actions (T), or 000000.npy

Folders below a split only divide the files; they are no classes. Entry ``t`` of the actions leads to frame ``t``, as
with us.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from filmstrip.data.actions import KEY, Sidecar
from filmstrip.data.layouts.arrays import Episode, frames
from filmstrip.data.sample import Sample, Source, collect, read_notes
from filmstrip.errors import UserError

SPLITS = ("train", "val", "test")
FPS = 20.0


def detect(root: Path) -> bool:
    """Whether the first video of a part of the training set has a file of actions of its own name."""
    first = next(root.glob("train/*/*.mp4"), None)
    return first is not None and _actions(first) is not None


def open_teco(root: Path) -> Source:
    """Minecraft or Habitat: unlabelled videos with actions.

    Raises:
        UserError: there are no such files; or there are arrays, which must be converted.
    """
    videos = [(split, path) for split in SPLITS for path in sorted(root.glob(f"{split}/*/*.mp4"))]
    if not videos:
        if detect_arrays(root):
            raise UserError(
                f"{root} holds arrays: filmstrip data convert teco {root} --out FOLDER makes videos of them"
            )
        raise UserError(f"{root} is not laid out as TECO's sets: expected train/0/000000.mp4 and train/0/000000.npz")
    samples = [
        Sample(path=str(path), name=path.relative_to(root).as_posix(), split=split, actions=_actions(path))
        for split, path in videos
    ]
    return collect(root, (), samples, read_notes(root))


def _actions(video: Path) -> Sidecar | None:
    return next((Sidecar(str(p)) for s in (".npz", ".npy") if (p := video.with_suffix(s)).is_file()), None)


def detect_arrays(root: Path) -> bool:
    """Whether there are arrays and no videos."""
    return next(root.glob("train/*/*.npz"), None) is not None and next(root.glob("train/*/*.mp4"), None) is None


def array_files(root: Path) -> list[tuple[str, Path]]:
    """DMLab's files with their splits.

    Raises:
        UserError: there are none.
    """
    files = [(split, path) for split in SPLITS for path in sorted(root.glob(f"{split}/*/*.npz"))]
    if not files:
        raise UserError(
            f"{root} is not laid out as TECO's arrays: expected train/0/000000.npz with video and actions"
        )
    return files


def read_arrays(path: Path) -> Iterator[Episode]:
    """The one episode of a file.

    Raises:
        ValueError, OSError: it cannot be read, or lacks one of the arrays.
    """
    with np.load(path, allow_pickle=False) as values:
        if "video" not in values.files:
            raise ValueError(f"it has no array 'video', but {', '.join(map(repr, values.files)) or 'none'}")
        video = values["video"]
        actions = values[KEY] if KEY in values.files else None
    yield Episode(f"{path.parent.name}-{path.stem}", frames(video), actions)
