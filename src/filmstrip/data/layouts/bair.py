"""BAIR robot pushing (Ebert et al. 2017), ``softmotion30_44k``: TFRecord files of 30 frames of 64 x 64 pixels.

    softmotion30_44k/train/traj_0_to_255.tfrecords

Record by record, feature ``T/image_aux1/encoded`` (and ``image_main``) holds a frame, as raw RGB bytes or an encoded
image; ``T/action`` (4) is the action *after* frame ``T``, so that it is moved by one here, with zeros before the
first frame. Published results use the camera ``aux1``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from filmstrip.data.layouts.arrays import Episode, frames, leading
from filmstrip.data.layouts.tfrecord import Values, features, records
from filmstrip.errors import UserError

FPS = 10.0
SPLITS = ("train", "val", "test")
CAMERA = "image_aux1"
IMAGES = (b"\xff\xd8\xff", b"\x89PNG")
"""Signatures of encoded images: JPEG and PNG."""


def detect_arrays(root: Path) -> bool:
    """Whether there are TFRecord files."""
    return next(_base(root).glob("train/*.tfrecord*"), None) is not None


def array_files(root: Path) -> list[tuple[str, Path]]:
    """The files with their splits.

    Raises:
        UserError: there are none.
    """
    files = [(split, path) for split in SPLITS for path in sorted(_base(root).glob(f"{split}/*.tfrecord*"))]
    if not files:
        raise UserError(f"{root} is not laid out as BAIR: expected softmotion30_44k/train/traj_0_to_255.tfrecords")
    return files


def read_arrays(path: Path) -> Iterator[Episode]:
    """The episodes of a file.

    Raises:
        ValueError, OSError: it cannot be read, lacks frames, or has not as many actions.
    """
    for i, record in enumerate(records(path)):
        try:
            video, actions = _contents(features(record))
        except ValueError as error:
            raise ValueError(f"record {i}: {error}") from None
        yield Episode(f"{path.name.split('.')[0]}-{i:03d}", video, actions)


def _contents(values: dict[str, Values]) -> tuple[Tensor, np.ndarray | None]:
    """Frames and actions of a record."""
    images = _sequence(values, f"{CAMERA}/encoded")
    if not images:
        raise ValueError(f"it has no frames '0/{CAMERA}/encoded', but {', '.join(sorted(values)[:4])}")
    video = frames(np.stack([_picture(image) for image in images]))
    done = _sequence(values, "action")
    return video, leading(np.stack(done), len(video)) if done else None


def _base(root: Path) -> Path:
    return root / "softmotion30_44k" if (root / "softmotion30_44k").is_dir() else root


def _sequence(values: dict[str, Values], name: str) -> list[Values]:
    """The features ``0/name``, ``1/name``, ...

    Raises:
        ValueError: one of them is missing.
    """
    count = sum(len(value) > 0 for key, value in values.items() if key.partition("/")[2] == name)
    keys = [f"{t}/{name}" for t in range(count)]
    if missing := [key for key in keys if not len(values.get(key, ()))]:
        raise ValueError(f"it has no '{missing[0]}', but {count} others like it")
    return [values[key] for key in keys]


def _picture(image: Values) -> np.ndarray:
    """A frame ``H W 3``: raw bytes of a square picture, or an encoded one."""
    data = image[0]
    if data.startswith(IMAGES):
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    side = math.isqrt(len(data) // 3)
    if 3 * side * side != len(data):
        raise ValueError(f"a frame of {len(data)} bytes is neither a square RGB image nor a JPEG or PNG file")
    return np.frombuffer(data, np.uint8).reshape(side, side, 3)
