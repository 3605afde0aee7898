"""The layout of TECO's sets (Yan et al. 2023): DMLab as arrays, Minecraft and Habitat as video with actions.

    dmlab/train/0/0.npz            video (T H W 3 uint8) and actions (T)
    minecraft/train/0/000000.mp4   and 000000.npz with actions (T), or 000000.npy
    habitat/train/0/scene_0.mp4    and scene_0.npz

Folders below a split only divide the files; they are no classes. The programs that recorded the sets differ in what
an entry of the actions is. In Minecraft and Habitat entry ``t`` leads to frame ``t``, as with us (Minecraft's first
is 0 for nothing; its actions count from 1). In DMLab it is the action after frame ``t``, and moves by one here;
before the first frame comes 0, the turn to the left that every walk begins with. TECO's own code makes no such
difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from filmstrip.data.actions import KEY, Sidecar
from filmstrip.data.layouts.arrays import Episode, frames, leading
from filmstrip.data.sample import Sample, Source, collect, read_notes
from filmstrip.errors import UserError

SPLITS = ("train", "val", "test")
FPS = 7.5
"""Frame rate of DMLab: 30 steps per second, of which every fourth was kept."""


def detect(root: Path) -> bool:
    """Whether there are videos in parts of a training set with files of actions of their own names.

    Several are checked, since recordings may lack the actions of some videos.
    """
    return any(_actions(video) for video in islice(root.glob("train/*/*.mp4"), 16))


def open_teco(root: Path) -> Source:
    """Minecraft or Habitat: unlabelled videos with actions.

    Raises:
        UserError: there are no such files; or there are arrays, which must be converted.
    """
    videos = [(split, path) for split in SPLITS for path in sorted(root.glob(f"{split}/*/*.mp4"))]
    if not videos:
        if detect_arrays(root):
            raise UserError(
                f"{root} holds arrays: filmstrip data convert {root} --layout teco --out FOLDER makes videos of them"
            )
        raise UserError(
            f"{root} is not laid out as TECO's datasets: expected train/0/000000.mp4 and train/0/000000.npz"
        )
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
        raise UserError(f"{root} is not laid out as TECO's arrays: expected train/0/0.npz with video and actions")
    return files


def read_arrays(path: Path) -> Iterator[Episode]:
    """The one episode of a file.

    Raises:
        ValueError, OSError: it cannot be read, has no videos, or not as many actions as frames.
    """
    with np.load(path, allow_pickle=False) as values:
        if "video" not in values.files:
            raise ValueError(f"it has no array 'video', but {', '.join(map(repr, values.files)) or 'none'}")
        video = frames(values["video"])
        actions = leading(values[KEY], len(video)) if KEY in values.files else None
    yield Episode(f"{path.parent.name}-{path.stem}", video, actions)
