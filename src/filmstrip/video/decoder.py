"""What a decoder promises, and the types that pass between decoders and those who use them.

Frames are addressed by presentation time, in seconds from the stream's first frame, never by counting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from torch import Tensor

from filmstrip.errors import UserError

VideoSource = str | Path | BinaryIO

ROUNDING = 1e-8
"""Seconds before a frame begins that still count as its beginning: sums of frame durations are rarely exact."""


class DecodeError(UserError):
    """A file, or a part of it, that cannot be decoded: which ``path``, which video ``stream``, and the ``reason``."""

    def __init__(self, path: str, stream: int, reason: str):
        super().__init__(f"{path}, video stream {stream}: {reason}")
        self.path, self.stream, self.reason = path, stream, reason

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:
        """Lets the error cross from a worker process."""
        return type(self), (self.path, self.stream, self.reason)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What the header says of one video stream, without decoding it."""

    path: str
    stream: int
    """Which of the video streams this is."""
    stream_index: int
    """Its place among all streams of the file."""
    codec: str
    pixel_format: str
    """FFmpeg's name, such as ``yuv420p10le``; empty when the header does not say."""
    width: int
    height: int
    """Size as displayed, after rotation, in stored pixels (pixels that are not square are not stretched)."""
    rotation: int
    """Degrees clockwise that the decoder turns each frame by, 0, 90, 180 or 270."""
    fps: float
    """Frames a second: the mean over the stream, whatever rate its header names."""
    duration: float
    """Seconds. A damaged file may hold less."""
    num_frames: int | None
    """Frames by the header, where it says."""
    num_video_streams: int
    has_audio: bool
    truncated: str = ""
    """Why the file is known, by its header or its packets, to end early; empty when it is not."""
    num_missing: int = 0
    """Frames that the header promises and the file does not hold, as far as is known."""


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
    """``T C H W``, uint8, RGB. Frames at source size lie channels-last in memory, scaled ones contiguously."""
    times: np.ndarray
    """When each shown frame begins, ``T`` float64, seconds from the stream's first frame."""
    damaged: tuple[bool, ...]
    """Whether each frame is known not to be what was encoded: concealed errors, lost or broken packets, or another
    frame standing in for one that could not be decoded."""
    truncated: str = ""
    """Why the file is known to end early; empty when it is not."""

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, eq=False)
class Request:
    """Frames to decode: those on screen at ``times`` (seconds, any order, repeats allowed), cut and scaled."""

    times: Sequence[float] | np.ndarray
    crop: Crop | None = None
    """The part to cut out; by default all of the frame."""
    size: tuple[int, int] | None = None
    """Height and width to scale to; by default the size of the crop."""


class Decoder(ABC):
    """One video stream of one file."""

    @property
    @abstractmethod
    def info(self) -> VideoInfo:
        """What the header says."""

    @abstractmethod
    def times(self) -> np.ndarray:
        """When each frame begins, ascending float64 seconds; reads all packets, once, without decoding them."""

    @abstractmethod
    def key_times(self) -> np.ndarray:
        """When each key frame begins: where decoding can start."""

    @abstractmethod
    def read(self, requests: Sequence[Request], *, snap: bool = False) -> list[Frames]:
        """Answer several requests from one pass over the file.

        Each time gets the frame on screen then: the last one that begins no later. With ``snap`` it may be a
        neighbour instead, where that saves decoding (training): frames that no other depends on are skipped.
        """

    def frames_at(
        self, times: Sequence[float] | np.ndarray, *, crop: Crop | None = None, size: tuple[int, int] | None = None
    ) -> Frames:
        """The frame on screen at each time."""
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
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
