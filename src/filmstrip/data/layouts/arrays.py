"""Videos with actions, as layouts of arrays provide them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Episode:
    """A video stored as an array."""

    name: str
    """Name that is unique in its split and valid as a file name."""
    video: Tensor
    """``T 3 H W`` uint8."""
    actions: np.ndarray | None
    """``T`` or ``T A``: entry ``t`` leads to frame ``t``."""


def leading(done: np.ndarray, num_frames: int) -> np.ndarray:
    """The actions that lead to each frame, from those ``done`` after each (the last frame's may be left out).

    Zeros lead to the first.

    Raises:
        ValueError: there are more or fewer than that.
    """
    if len(done) not in (num_frames - 1, num_frames):
        raise ValueError(f"it has {num_frames} frames and {len(done)} actions: expected one after each frame")
    return np.concatenate([np.zeros((1, *done.shape[1:]), done.dtype), done[: num_frames - 1]])


def frames(video: np.ndarray) -> Tensor:
    """``T 3 H W`` from ``T H W 3``.

    Raises:
        ValueError: it is no such array of uint8.
    """
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
        raise ValueError(f"video should be uint8 of shape (T, H, W, 3), not {video.dtype} of shape {video.shape}")
    return rearrange(torch.from_numpy(video), "t h w c -> t c h w")
