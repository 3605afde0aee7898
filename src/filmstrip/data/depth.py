"""Depth maps of videos: a map for each frame, in a file of arrays beside the video.

``clip.depth.npz`` beside ``clip.mp4`` holds the array ``depth``, ``T H W``: a number for each pixel of each frame of
the file, larger where things are nearer, in any unit. Maps may be smaller or larger than the frames.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.errors import UserError

KEY = "depth"
"""Name of the array."""


def depth_file(video: str | Path) -> Path:
    """Where the depth maps of a video are: ``clip.depth.npz`` beside ``clip.mp4``."""
    return Path(video).with_suffix(".depth.npz")


def write_depth(maps: Tensor, path: Path) -> None:
    """Write maps ``T H W``."""
    np.savez_compressed(path, depth=maps.numpy())


def read_depth(path: Path) -> Tensor:
    """The maps of a file, ``T H W`` float32: an ``.npz`` with the array ``depth``, or an ``.npy``.

    Raises:
        UserError: the file is not there, or holds no such maps; the message says what it holds instead.
    """
    try:
        with path.open("rb") as file:
            maps = np.load(file, allow_pickle=False)
            if not isinstance(maps, np.ndarray):
                if KEY not in maps:
                    raise UserError(f"{path} has no array {KEY!r}; it has {', '.join(maps.files) or 'none'}")
                maps = maps[KEY]
    except OSError as error:
        raise UserError(f"{path} cannot be read as depth maps: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no depth maps: {error}") from None
    if maps.ndim != 3 or maps.dtype.kind not in "biuf" or not maps.size or not np.isfinite(maps).all():
        raise UserError(
            f"{path} holds {maps.dtype} of shape {maps.shape}: depth maps are finite numbers of shape (frames, "
            "height, width)"
        )
    return torch.from_numpy(maps.astype(np.float32))


def shown_depth(maps: Tensor, numbers: Sequence[int], shown: Sequence[float], size: int) -> Tensor:
    """What a clip shows of maps ``T H W``: ``N 1 size size`` of its ``N`` frames.

    ``numbers`` are those of its frames in the file, ``shown`` the part of the frames that it shows: left, top, right,
    bottom, as fractions.

    Raises:
        UserError: there are fewer maps than frames.
    """
    if max(numbers) >= len(maps):
        raise UserError(f"there are depth maps of {len(maps)} frames, and frame {max(numbers)} is shown")
    height, width = maps.shape[1:]
    left, right = (round(share * width) for share in (shown[0], shown[2]))
    top, bottom = (round(share * height) for share in (shown[1], shown[3]))
    cut = maps[list(numbers), top : max(bottom, top + 1), left : max(right, left + 1)][:, None]
    if cut.shape[-2:] == (size, size):
        return cut
    return F.interpolate(cut, (size, size), mode="bilinear", align_corners=False, antialias=True)
