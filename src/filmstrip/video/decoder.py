"""The decoder interface and its types.

Frames are addressed by presentation time, in seconds from the stream's first frame, never by counting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from torch import Tensor

from filmstrip.errors import UserError


@dataclass(frozen=True)
class FrameFolder:
    """A film that is a folder of images, and its frames per second, if known."""

    path: str
    fps: float | None = None

    def __str__(self) -> str:
        return self.path


VideoSource = str | Path | BinaryIO | FrameFolder

ROUNDING = 1e-8
"""Tolerance before the start of a frame, seconds: sums of frame durations are rarely exact."""


class DecodeError(UserError):
    """A file, or a part of it, cannot be decoded: its ``path``, the video ``stream``, and the ``reason``."""

    def __init__(self, path: str, stream: int, reason: str):
        super().__init__(f"{path}, video stream {stream}: {reason}")
        self.path, self.stream, self.reason = path, stream, reason

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:
        """Support transfer from a worker process."""
        return type(self), (self.path, self.stream, self.reason)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Properties of one video stream from its header, without decoding."""

    path: str
    stream: int
    """Index among the file's video streams."""
    stream_index: int
    """Index among all streams of the file."""
    codec: str
    pixel_format: str
    """FFmpeg's name, such as ``yuv420p10le``; empty if the header does not state it."""
    width: int
    height: int
    """Displayed size, after rotation, in stored pixels (non-square pixels are not stretched)."""
    rotation: int
    """Rotation that the decoder applies, degrees clockwise: 0, 90, 180 or 270."""
    fps: float
    """Mean frames per second over the stream, whatever its header states."""
    duration: float
    """Duration, seconds. A damaged file may hold less."""
    num_frames: int | None
    """Number of frames according to the header, if stated."""
    num_video_streams: int
    has_audio: bool
    truncated: str = ""
    """Reason why the file is known, from header or packets, to end early; empty if it is not."""
    num_missing: int = 0
    """Known number of frames that the header lists and the file does not hold."""


class Crop(NamedTuple):
    """A rectangle in the displayed frame, in source pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass
class Frames:
    """Decoded frames."""

    video: Tensor
    """RGB frames, ``T C H W`` uint8. Frames at source size lie channels-last in memory, scaled ones contiguously."""
    times: np.ndarray
    """Start time of each returned frame, ``T`` float64, seconds from the stream's first frame."""
    damaged: tuple[bool, ...]
    """Whether each frame is known to differ from what was encoded: concealed errors, lost or corrupt packets, or a
    substitute for a frame that could not be decoded."""
    truncated: str = ""
    """Reason why the file is known to end early; empty if it is not."""
    crop: Crop | None = None
    """Part of the frame that was cut out, where a clip was (:mod:`filmstrip.video.clips`)."""

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, eq=False)
class Request:
    """Frames to decode: those displayed at ``times`` (seconds, any order, repeats allowed), cropped and scaled."""

    times: Sequence[float] | np.ndarray
    crop: Crop | None = None
    """Part of the frame to keep; by default all of it."""
    size: tuple[int, int] | None = None
    """Height and width to scale to; by default the size of the crop."""


class Decoder(ABC):
    """One video stream of one file."""

    @property
    @abstractmethod
    def info(self) -> VideoInfo:
        """Properties from the header."""

    @abstractmethod
    def times(self) -> np.ndarray:
        """Start time of each frame, ascending float64 seconds; reads all packets, once, without decoding."""

    @abstractmethod
    def key_times(self) -> np.ndarray:
        """Start time of each key frame, seconds: where decoding can start."""

    @property
    def unusable(self) -> Mapping[str, str]:
        """Files of single frames that were found unusable so far, with the reason: of folders of frames alone."""
        return {}

    @abstractmethod
    def read(self, requests: Sequence[Request], *, snap: bool = False) -> list[Frames]:
        """Answer several requests from one pass over the file.

        Each time returns the frame displayed then: the last one that starts no later. With ``snap`` it may be a
        neighbour, where that saves decoding (training): non-reference frames are skipped.
        """

    def frames_at(
        self, times: Sequence[float] | np.ndarray, *, crop: Crop | None = None, size: tuple[int, int] | None = None
    ) -> Frames:
        """The frame displayed at each time."""
        return self.read([Request(times, crop, size)])[0]

    @abstractmethod
    def frames(
        self,
        start: float = 0.0,
        stop: float | None = None,
        *,
        crop: Crop | None = None,
        size: tuple[int, int] | None = None,
        chunk: int = 32,
    ) -> Iterator[Frames]:
        """All frames that begin in ``start <= time < stop``, in order, up to ``chunk`` at a time."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
