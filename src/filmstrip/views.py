"""The views of one file that evaluation and prediction look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.data.config import Clip, Data
from filmstrip.data.dataset import cut
from filmstrip.data.sample import Sample
from filmstrip.errors import UserError


@dataclass(frozen=True)
class Views:
    """Clips of one video, evenly spaced, each as one or several crops."""

    video: Tensor
    """``num_clips * num_crops T C H W`` uint8; the crops of a clip are neighbours."""
    spans: tuple[tuple[float, float], ...]
    """Each clip's first and last frame, seconds from the video's first."""
    damaged: bool
    """Whether some of the frames are damaged, or the file ends too early."""


def read_views(
    path: Path | str,
    clip: Clip,
    *,
    num_clips: int = 1,
    num_crops: int = 1,
    backend: str = "auto",
    start: float | None = None,
    end: float | None = None,
) -> Views:
    """Cut the views of a file, or of its part from ``start`` to ``end`` (seconds), as evaluation does.

    Raises:
        UserError: the file cannot be read (a DecodeError if it could be opened).
    """
    sample = Sample(path=str(path), name=str(path), start=start, end=end)
    try:
        views = cut(sample, Data(clip=clip, backend=backend), num_clips=num_clips, num_crops=num_crops)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    return Views(
        video=torch.stack([view.video for view in views]),
        spans=tuple((float(view.times[0]), float(view.times[-1])) for view in views[::num_crops]),
        damaged=any(any(view.damaged) or bool(view.truncated) for view in views),
    )
