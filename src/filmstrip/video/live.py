"""Sources that never end, such as cameras: the newest frames, whatever became of those before.

A thread decodes what comes and keeps the newest frames. A reader who is slower than the source misses frames and
never falls behind it; where decoding itself is too slow, frames that nothing depends on are left out, then all but
key frames.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import torch
from av import VideoFrame
from torch import Tensor

from filmstrip.video.convert import Converter
from filmstrip.video.damage import ErrorLog
from filmstrip.video.decoder import Crop, DecodeError, VideoInfo
from filmstrip.video.remote import address_of, is_live

STDIN = "-"
"""Name of the source that comes through the standard input."""
TIMEOUT = 10.0
"""Time without anything new after which a source counts as ended, in seconds."""
_LATE = (0.5, 2.0)
"""Seconds behind the source beyond which frames are left out: those that nothing depends on; all but key frames."""
_WAITED = 0.02
"""Time spent waiting for a packet that shows that decoding is not behind, in seconds."""
_MAX_BROKEN = 250
"""Number of packets in a row that cannot be decoded after which a source counts as no video."""
_POLL = 0.2
"""Time between looks at whether a reader was interrupted, in seconds."""
_UNKNOWN_FPS = 30.0
"""Frames per second of sources that do not say any."""


def is_live_source(path: str | Path) -> bool:
    """Whether a path is a source that never ends: an address such as ``rtsp://...``, a device, a pipe, or ``-``."""
    if (address := address_of(path)) is not None:
        return is_live(address)
    if str(path) == STDIN:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return str(path).startswith("/dev/video")
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


@dataclass(frozen=True)
class Window:
    """The newest frames of a source."""

    frames: tuple[VideoFrame, ...]
    """Frames in order, evenly spaced; the first one is repeated while there are fewer."""
    times: np.ndarray
    """Time of each frame, seconds since the source's first frame."""
    came: float
    """When the newest frame came, by :func:`time.monotonic`."""
    dropped: int
    """Number of frames that were left out so far because decoding was too slow."""
    info: VideoInfo

    def only(self, place: int) -> Window:
        """The window of one of its frames."""
        return replace(self, frames=(self.frames[place],), times=self.times[place : place + 1])

    def video(self, crop: Crop | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """The frames, cropped and scaled, ``T C H W`` uint8."""
        converter = Converter(self.info, crop, size)
        video = converter.allocate(len(self.frames))
        for i, frame in enumerate(self.frames):
            if i and frame is self.frames[i - 1]:
                video[i] = video[i - 1]
            else:
                converter(frame, video[i])
        return torch.from_numpy(video)


class LiveSource:
    """A source that is followed; a context, at whose end it is closed.

    Raises:
        DecodeError: it cannot be opened, or is no video.
    """

    def __init__(self, source: str | Path, *, timeout: float = TIMEOUT) -> None:
        self.name = address_of(source) or str(source)
        self._timeout = timeout
        self._changed = threading.Condition()
        self._kept: deque[tuple[VideoFrame, float, float]] = deque()
        self._step = 0.0
        self._over: DecodeError | None = None
        """Why there is nothing more, once there is not."""
        self._stopped = False
        self._dropped = 0
        self._first: float | None = None
        self._newest, self._slot = 0.0, -1
        self._thread: threading.Thread | None = None
        self._container = self._open()
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_type = "SLICE"  # frames in parallel would come late
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or _UNKNOWN_FPS)
        """Frames per second that the source promises."""

    def _open(self) -> Any:
        target: Any = self.name
        settings: dict[str, Any] = {"timeout": (self._timeout, self._timeout)}
        options = {"analyzeduration": "1000000"}
        if self.name == STDIN:
            target = sys.stdin.buffer
        elif address_of(self.name) is None:
            if self.name.startswith("/dev/video"):
                settings["format"] = "v4l2"
            else:
                target = f"file:{self.name}"
        elif self.name.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        with ErrorLog() as log:
            try:
                container = av.open(target, options=options, metadata_errors="replace", **settings)
            except (av.FFmpegError, OSError, ValueError) as error:
                raise self._error(f"it cannot be opened: {log.last() or self._in_words(error)}") from None
        if not container.streams.video or container.streams.video[0].codec_context is None:
            container.close()
            raise self._error("it has no pictures that can be decoded")
        return container

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop following."""
        self._stopped = True
        if self._thread is not None:
            # It may hang in a read until that times out; nobody waits for it then.
            self._thread.join(timeout=1.0)
        if self._thread is None or not self._thread.is_alive():
            self._container.close()

    def windows(self, num_frames: int, step: float, *, every: float = 0.0) -> Iterator[Window]:
        """The newest ``num_frames`` frames, ``step`` seconds apart, again and again until the source ends.

        The first window comes when there are enough frames, later ones when there are new ones and ``every`` seconds
        of the source have gone by, the last one when it ends. A source that ends with fewer frames yields these, the
        first one repeated.

        Raises:
            DecodeError: (while iterating) the source breaks off, or it never had a picture.
        """
        self._step = step
        with self._changed:
            self._kept = deque(maxlen=num_frames)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        last = -np.inf
        while True:
            with self._changed:
                while not self._is_due(num_frames, last, every) and self._over is None:
                    self._changed.wait(_POLL)
                kept, over = list(self._kept), self._over
            if kept and kept[-1][1] > last and (len(kept) == num_frames or (over is not None and last == -np.inf)):
                last = kept[-1][1]
                yield self._window(kept, num_frames)
            elif over is not None:
                if over.reason:
                    raise over
                return

    def _is_due(self, num_frames: int, last: float, every: float) -> bool:
        if len(self._kept) < num_frames:
            return False
        newest = self._kept[-1][1]
        return newest > last and newest - last >= every - self._step / 2

    def _window(self, kept: list[tuple[VideoFrame, float, float]], num_frames: int) -> Window:
        kept = [kept[0]] * (num_frames - len(kept)) + kept
        frame = kept[-1][0]
        info = VideoInfo(
            path=self.name,
            stream=0,
            stream_index=self._stream.index,
            codec=self._stream.codec_context.name,
            pixel_format=frame.format.name,
            width=frame.width,
            height=frame.height,
            rotation=0,
            fps=self.fps,
            duration=kept[-1][1],
            num_frames=None,
            num_video_streams=1,
            has_audio=False,
        )
        return Window(
            tuple(frame for frame, _, _ in kept),
            np.array([second for _, second, _ in kept]),
            kept[-1][2],
            self._dropped,
            info,
        )

    def _follow(self) -> None:
        """Decode what comes, until it ends or nobody reads any more."""
        reason = ""
        try:
            self._decode()
        except Exception as error:  # of a thread nobody hears
            reason = f"it broke off: {self._in_words(error)}"
        with self._changed:
            if not reason and self._first is None and not self._stopped:
                reason = "it ended without a picture that could be decoded"
            self._over = self._error(reason)
            self._changed.notify_all()

    def _decode(self) -> None:
        codec = self._stream.codec_context
        lag = _Lag()
        broken, asked = 0, time.monotonic()
        for packet in self._container.demux(self._stream):
            waited = time.monotonic() - asked
            if self._stopped:
                return
            codec.skip_frame = allowed = lag.allowed(waited)
            try:
                frames = packet.decode()
                broken = 0
            except av.FFmpegError:  # before the first key frame, or lost on the way
                frames, broken = [], broken + 1
                if broken > _MAX_BROKEN:
                    raise
            self._dropped += not frames and allowed != "DEFAULT"
            for frame in frames:
                lag.seen(self._keep(frame))
            asked = time.monotonic()

    def _keep(self, frame: VideoFrame) -> float:
        """Take a frame if it is the next one of its window; its time, seconds since the first."""
        came = time.monotonic()
        second = came if frame.time is None else frame.time
        self._first = second if self._first is None else self._first
        second -= self._first
        if second < self._newest:  # the source started anew
            self._first += second - self._newest
            second = self._newest
        self._newest = second
        slot = int((second + 0.5 / self.fps) / self._step)
        if slot > self._slot:
            self._slot = slot
            with self._changed:
                self._kept.append((frame, second, came))
                self._changed.notify_all()
        return second

    def _in_words(self, error: Exception) -> str:
        """The reason of an error; FFmpeg calls the end of patience a request to exit."""
        return f"nothing came for {self._timeout:g} s" if isinstance(error, av.error.ExitError) else str(error)

    def _error(self, reason: str) -> DecodeError:
        return DecodeError(self.name, 0, reason)


class _Lag:
    """How far decoding is behind the source: since it last had to wait for it."""

    def __init__(self) -> None:
        self._since: tuple[float, float] | None = None
        self._behind = 0.0

    def seen(self, second: float) -> None:
        """Note that a frame of this time was decoded now."""
        now = time.monotonic()
        if self._since is None:
            self._since = (now, second)
        self._behind = (now - self._since[0]) - (second - self._since[1])

    def allowed(self, waited: float) -> str:
        """Which frames may be left out, after waiting so long for a packet."""
        if waited > _WAITED:
            self._since, self._behind = None, 0.0
        return "NONKEY" if self._behind > _LATE[1] else "NONREF" if self._behind > _LATE[0] else "DEFAULT"
