"""Clips for training and testing: moments and crops chosen, then everything decoded in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from filmstrip.video import sampling as moments
from filmstrip.video.decoder import Box, DecodeError, Decoder, Frames, Request
from filmstrip.video.geometry import centre_crop, random_resized, random_short_side, three_crops

_LATE = 2.5
"""How many frames before the moment asked for a shown frame begins when the header overstated the duration."""


@dataclass(frozen=True, kw_only=True)
class _Cutter:
    """How clips are cut; :func:`read_clips` says what each value means."""

    num_frames: int
    stride: int
    sampling: str
    size: tuple[int, int]
    crop: str
    short_side: tuple[int, int] | None
    area: tuple[float, float]
    aspect: tuple[float, float]
    num_clips: int
    num_crops: int
    key_starts: bool

    def requests(self, decoder: Decoder, start: float, end: float, rng: np.random.Generator | None) -> list[Request]:
        """What to decode for all clips of the span, clip by clip."""
        if rng is None:
            views = [
                (times, box) for times in self._spread(decoder, start, end) for box in self._fixed_boxes(decoder)
            ]
        else:
            views = [
                (self._random_times(decoder, start, end, rng), self._random_box(decoder, rng))
                for _ in range(self.num_clips)
            ]
        return [Request(times, box, self.size) for times, box in views]

    def _random_times(self, decoder: Decoder, start: float, end: float, rng: np.random.Generator) -> np.ndarray:
        fps = decoder.info.fps
        if self.sampling == "uniform":
            return moments.uniform(self.num_frames, start, end)
        if self.sampling == "segments":
            return moments.segments(self.num_frames, start, end, rng)
        times = moments.dense(self.num_frames, self.stride, fps, start, end, rng)
        if self.key_starts:
            first = moments.to_key_frame(times[0], decoder.key_times(), start)
            return moments.dense_from(first, self.num_frames, self.stride, fps, end)
        return times

    def _spread(self, decoder: Decoder, start: float, end: float) -> np.ndarray:
        if self.sampling == "dense":
            fps = decoder.info.fps
            return moments.dense_views(self.num_frames, self.stride, fps, start, end, self.num_clips)
        return moments.shifted_views(self.num_frames, start, end, self.num_clips)

    def _random_box(self, decoder: Decoder, rng: np.random.Generator) -> Box:
        height, width = decoder.info.height, decoder.info.width
        if self.crop == "random_resized":
            return random_resized(height, width, self.area, self.aspect, rng)
        return random_short_side(height, width, self.size, self.short_side or (min(self.size), min(self.size)), rng)

    def _fixed_boxes(self, decoder: Decoder) -> list[Box]:
        height, width = decoder.info.height, decoder.info.width
        return (
            three_crops(height, width, self.size) if self.num_crops == 3 else [centre_crop(height, width, self.size)]
        )


def read_clips(
    decoder: Decoder,
    *,
    num_frames: int,
    stride: int = 4,
    sampling: Literal["dense", "uniform", "segments"] = "dense",
    size: int | tuple[int, int] = 224,
    crop: Literal["short_side", "random_resized"] = "short_side",
    short_side: tuple[int, int] | None = None,
    area: tuple[float, float] = (0.5, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    rng: np.random.Generator | None = None,
    num_clips: int = 1,
    num_crops: int = 1,
    start: float | None = None,
    end: float | None = None,
    snap: bool = False,
    key_starts: bool = False,
) -> list[Frames]:
    """Cut clips out of a video, each ``T C H W`` uint8 of ``size`` (height, width), in one pass over the file.

    With ``rng`` (training) ``num_clips`` random ones. Without (testing) ``num_clips`` spread evenly, each cut
    ``num_crops`` times: 1 the centre, 3 along the longer side; clip by clip. ``start`` and ``end`` (seconds) bound
    the part of the video. In training, ``snap`` allows neighbouring frames where that saves decoding, and
    ``key_starts`` begins dense clips at key frames.

    Raises:
        DecodeError: nothing could be decoded, or the video has no such part.
        ValueError: ``num_crops`` is neither 1 nor 3.
    """
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops is 1 (centre) or 3 (along the longer side), not {num_crops}")
    cutter = _Cutter(
        num_frames=num_frames,
        stride=stride,
        sampling=sampling,
        size=(size, size) if isinstance(size, int) else size,
        crop=crop,
        short_side=short_side,
        area=area,
        aspect=aspect,
        num_clips=num_clips,
        num_crops=num_crops,
        key_starts=key_starts,
    )
    info = decoder.info
    first, last = max(0.0, start or 0.0), info.duration if end is None else min(end, info.duration)
    if last <= first:
        asked = f"{first:g} s to {'its end' if end is None else f'{end:g} s'}"
        raise DecodeError(info.path, info.stream, f"it lasts {info.duration:g} s; {asked} was asked for")
    requests = cutter.requests(decoder, first, last, rng)
    clips = decoder.read(requests, snap=snap)
    if any(request.times[-1] - clip.times[-1] > _LATE / info.fps for request, clip in zip(requests, clips)):
        held = float(decoder.times()[-1]) + 1 / info.fps
        if first < held < last - 1 / info.fps:  # cut off, or the sound lasts longer: choose among what is there
            clips = decoder.read(cutter.requests(decoder, first, held, rng), snap=snap)
    return clips
