"""Views of one file for evaluation and prediction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.data.config import Clip
from filmstrip.data.kinds.clips import cut_parts
from filmstrip.errors import UserError
from filmstrip.video.decode import Backend, open_video
from filmstrip.video.decoder import Decoder, VideoInfo, VideoSource
from filmstrip.video.images import is_image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Views:
    """Clips of one video, evenly spaced, each as one or several crops."""

    video: Tensor
    """Views, ``num_clips * num_crops T C H W`` uint8; the crops of a clip are adjacent."""
    spans: tuple[tuple[float, float], ...]
    """Times of the first and last frame of each clip, in seconds from the video's first frame."""
    damaged: bool
    """Whether some frames are damaged, or the file ends prematurely."""


def read_views(
    path: VideoSource,
    clip: Clip,
    *,
    num_clips: int = 1,
    num_crops: int = 1,
    backend: Backend = "auto",
    part: tuple[float | None, float | None] = (None, None),
) -> Views:
    """Cut the views of a file, or of the part of it between two seconds, as evaluation does: of ``num_clips`` clips,
    no more than there are frames.

    Raises:
        UserError: the file cannot be read (a DecodeError if it could be opened).
    """
    with opened(path, backend) as decoder:
        if num_clips > (held := frames_in(decoder.info, *part)):
            still = isinstance(path, (str, Path)) and is_image(path)
            level = logging.DEBUG if still else logging.WARNING  # an image is not expected to have several
            named = path if isinstance(path, (str, Path)) else decoder.info.path
            log.log(level, "%s: %d clips are cut of it, as many as it has frames, and not %d", named, held, num_clips)
            num_clips = held
        return next(views_of_parts(decoder, clip, [part], num_clips=num_clips, num_crops=num_crops))


def frames_in(info: VideoInfo, start: float | None = None, end: float | None = None) -> int:
    """How many frames a video holds by its header, or the part of it between two seconds; one at least."""
    if start is None and end is None and info.num_frames:
        return info.num_frames
    lasts = min(info.duration, info.duration if end is None else end) - (start or 0.0)
    return max(1, round(lasts * info.fps))


def views_of_parts(
    decoder: Decoder,
    clip: Clip,
    parts: Iterable[tuple[float | None, float | None]],
    *,
    num_clips: int = 1,
    num_crops: int = 1,
) -> Iterator[Views]:
    """The views of each part of an open file (its first and last second), in turn.

    Raises:
        DecodeError: (while iterating) nothing could be decoded, or the file has no such part.
    """
    for views in cut_parts(decoder, clip, parts, num_clips, num_crops):
        yield Views(
            video=torch.stack([view.video for view in views]),
            spans=tuple((float(view.times[0]), float(view.times[-1])) for view in views[::num_crops]),
            damaged=any(any(view.damaged) or bool(view.truncated) for view in views),
        )


@contextmanager
def opened(path: VideoSource, backend: Backend = "auto") -> Iterator[Decoder]:
    """A file, open while the body reads it.

    Raises:
        UserError: it cannot be read (a DecodeError if it could be opened).
    """
    try:
        with open_video(path, backend=backend) as decoder:
            yield decoder
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
