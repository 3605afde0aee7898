"""Clips for training and testing: times and crops are chosen, then everything is decoded in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from filmstrip.video import sampling as moments
from filmstrip.video.batched_reading import read_batched
from filmstrip.video.decoder import Crop, DecodeError, Decoder, Frames, Request, VideoInfo
from filmstrip.video.geometry import centre_crop, random_resized, random_short_side, three_crops

NativeSize = Callable[[int, int, int], tuple[int, int]]
"""Height and width at which whole frames enter, from a clip's number of frames and their own height and width."""
_LATE = 2.5
"""Frames between a requested time and the start of the returned frame beyond which the header overstated the
duration."""


@dataclass(frozen=True, kw_only=True)
class _Cutter:
    """Settings of clip sampling; see :func:`read_clips`."""

    num_frames: int
    stride: int
    sampling: str
    size: tuple[int, int]
    num_clips: int
    num_crops: int
    crop: str = "short_side"
    short_side: tuple[int, int] | None = None
    area: tuple[float, float] = (0.5, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    key_starts: bool = False
    native: NativeSize | None = None
    eval_short_side: int | None = None

    def __post_init__(self) -> None:
        if self.num_crops not in (1, 3):
            raise ValueError(f"num_crops is 1 (centre) or 3 (along the longer side), got {self.num_crops}")
        if self.native is not None and self.num_crops != 1:
            raise ValueError("frames at their own shape are whole: num_crops is 1")

    def requests(self, decoder: Decoder, start: float, end: float, rng: np.random.Generator | None) -> list[Request]:
        """Decoding requests for all clips of the span, clip by clip."""
        if rng is None:
            views = [
                (times, crop) for times in self._spread(decoder, start, end) for crop in self._fixed_crops(decoder)
            ]
        else:
            views = [
                (self._random_times(decoder, start, end, rng), self._random_crop(decoder, rng))
                for _ in range(self.num_clips)
            ]
        if self.native is not None:
            size = self.native(self.num_frames, decoder.info.height, decoder.info.width)
            return [Request(times, None, size) for times, _ in views]
        return [Request(times, crop, self.size) for times, crop in views]

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

    def _random_crop(self, decoder: Decoder, rng: np.random.Generator) -> Crop:
        height, width = decoder.info.height, decoder.info.width
        if self.crop == "random_resized":
            return random_resized(height, width, self.area, self.aspect, rng)
        return random_short_side(height, width, self.size, self.short_side or (min(self.size), min(self.size)), rng)

    def _fixed_crops(self, decoder: Decoder) -> list[Crop]:
        height, width = decoder.info.height, decoder.info.width
        crops = (height, width, self.size, self.eval_short_side)
        return three_crops(*crops) if self.num_crops == 3 else [centre_crop(*crops)]


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
    native: NativeSize | None = None,
    eval_short_side: int | None = None,
) -> list[Frames]:
    """Sample clips of a video, each ``T C H W`` uint8 of ``size`` (height, width), in one pass over the file.

    With ``rng`` (training): ``num_clips`` random clips. Without (testing): ``num_clips`` evenly spaced clips of
    ``num_crops`` crops each: 1 for the centre, 3 along the longer side; clip by clip. ``start`` and ``end`` (seconds)
    bound the part of the video. In training, ``snap`` allows neighbouring frames where that saves decoding, and
    ``key_starts`` starts dense clips at key frames. In testing, the short side is scaled to ``eval_short_side``
    first, by default to that of ``size``. With ``native`` clips have whole frames of the size it says.

    Raises:
        DecodeError: nothing could be decoded, or the video has no such part.
        ValueError: ``num_crops`` is neither 1 nor 3.
    """
    cutter = _Cutter(
        num_frames=num_frames,
        stride=stride,
        sampling=sampling,
        size=_both(size),
        crop=crop,
        short_side=short_side,
        area=area,
        aspect=aspect,
        num_clips=num_clips,
        num_crops=num_crops,
        key_starts=key_starts,
        native=native,
        eval_short_side=eval_short_side,
    )
    first, last = _bounds(decoder.info, start, end)
    requests = cutter.requests(decoder, first, last, rng)
    clips = decoder.read(requests, snap=snap)
    if (held := _held(decoder, requests, clips, first, last)) is not None:
        requests = cutter.requests(decoder, first, held, rng)
        clips = decoder.read(requests, snap=snap)
    return _with_crops(clips, requests)


def read_parts(
    decoder: Decoder,
    parts: Iterable[tuple[float | None, float | None]],
    *,
    num_frames: int,
    stride: int = 4,
    sampling: Literal["dense", "uniform", "segments"] = "dense",
    size: int | tuple[int, int] = 224,
    num_clips: int = 1,
    num_crops: int = 1,
    native: NativeSize | None = None,
    eval_short_side: int | None = None,
) -> Iterator[list[Frames]]:
    """Test clips as from :func:`read_clips` for each part (start and end, seconds) of a video, in order.

    Raises:
        DecodeError: (while iterating) nothing could be decoded, or the video has no such part.
        ValueError: ``num_crops`` is neither 1 nor 3.
    """
    cutter = _Cutter(
        num_frames=num_frames,
        stride=stride,
        sampling=sampling,
        size=_both(size),
        num_clips=num_clips,
        num_crops=num_crops,
        native=native,
        eval_short_side=eval_short_side,
    )
    bounds = [_bounds(decoder.info, start, end) for start, end in parts]
    asked = [cutter.requests(decoder, first, last, None) for first, last in bounds]
    for (first, last), requests, clips in zip(bounds, asked, read_batched(decoder, asked)):
        if (held := _held(decoder, requests, clips, first, last)) is not None:
            requests = cutter.requests(decoder, first, held, None)
            clips = decoder.read(requests)
        yield _with_crops(clips, requests)


def _with_crops(clips: Sequence[Frames], requests: Sequence[Request]) -> list[Frames]:
    """Decoded clips, each with the crop that was requested."""
    return [replace(clip, crop=request.crop) for clip, request in zip(clips, requests, strict=True)]


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _bounds(info: VideoInfo, start: float | None, end: float | None) -> tuple[float, float]:
    """Start and end of a part, seconds.

    Raises:
        DecodeError: the video has no such part.
    """
    first, last = max(0.0, start or 0.0), info.duration if end is None else min(end, info.duration)
    if last <= first:
        span = f"{first:g} s to {'its end' if end is None else f'{end:g} s'}"
        raise DecodeError(info.path, info.stream, f"it lasts {info.duration:g} s; {span} was requested")
    return first, last


def _held(
    decoder: Decoder, requests: Sequence[Request], clips: Sequence[Frames], first: float, last: float
) -> float | None:
    """The actual end of a part that extends beyond the available frames (truncated file, or longer audio).

    None if it does not, or if no frame of the part is available. Clips are then sampled from the available span.
    """
    fps = decoder.info.fps
    if not any(request.times[-1] - clip.times[-1] > _LATE / fps for request, clip in zip(requests, clips)):
        return None
    held = float(decoder.times()[-1]) + 1 / fps
    return held if first < held < last - 1 / fps else None
