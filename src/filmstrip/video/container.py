"""One video stream of one file through libavformat: opening, seeking, packets, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from filmstrip.video.damage import ErrorLog
from filmstrip.video.decoder import DecodeError, Source, VideoInfo
from filmstrip.video.packets import PacketIndex

_INDEXED = ("mov,mp4", "matroska")
"""Formats that give every packet's presentation time and know where their key frames are."""

_SEEKABLE = (*_INDEXED, "mpegts", "avi", "flv", "asf")
"""Formats whose packets carry the same times after a seek; others are decoded from the start."""

_START = -(2**62)
"""Ticks before every packet."""

_PREMATURE = "ended prematurely"
"""What FFmpeg says of a Matroska file that was cut off."""

_ENDS_EARLY = "the file was cut off: it ends in the middle of its data"

_MAX_ERRORS = 3
"""Reading errors in a row after which a file counts as ended: a damaged place is passed, a cut-off end is not."""


class Container:
    """A file, open, and one of its video streams (``stream``, ``codec``)."""

    def __init__(self, source: Source, stream: int, threads: int):
        self._source, self._number, self._threads = source, stream, threads
        self.path = str(source) if isinstance(source, (str, Path)) else str(getattr(source, "name", "<memory>"))
        self.truncated = ""
        """Why the file is known to end early; found when its end is reached."""
        self.cut = math.nan
        """The time of the packet that the end cuts through, where the format hands out such packets."""
        self._index: PacketIndex | None = None
        self._opened: InputContainer | None = None
        self._open()
        self.info = self._describe()

    def _open(self) -> None:
        self.close()
        if isinstance(self._source, (str, Path)):
            self._check_file()
        else:
            self._source.seek(0)
        target = f"file:{self.path}" if isinstance(self._source, (str, Path)) else self._source
        with ErrorLog() as log:
            try:
                self._opened = av.open(target, metadata_errors="replace")
            except (av.FFmpegError, ValueError) as error:
                raise self.error(f"not a video that FFmpeg can open: {log.last() or error}") from None
        videos = [s for s in self._opened.streams.video if not s.disposition & Disposition.attached_pic]
        if log.says(_PREMATURE) or self._index_exceeds_file():
            self.truncated = _ENDS_EARLY
        if self._number >= len(videos):
            held = ", ".join(s.type for s in self._opened.streams) or "none"
            self.close()
            raise self.error(f"the file has {len(videos)} video streams (all its streams: {held})")
        self.stream: VideoStream = videos[self._number]
        if self.stream.codec_context is None:
            self.close()
            raise self.error("FFmpeg has no decoder for its codec")
        self.codec = self.stream.codec_context
        self.codec.thread_count = self._threads
        self.codec.thread_type = "SLICE" if self._threads == 1 else "AUTO"
        self.fresh = True

    def _index_exceeds_file(self) -> bool:
        """Whether the header lists packets that lie behind the end of the file."""
        entries = self._opened.streams.video[0].index_entries if self._opened.streams.video else ()
        return (
            len(entries) > 0
            and 0 < self._opened.size < entries[len(entries) - 1].pos + entries[len(entries) - 1].size
        )

    def _check_file(self) -> None:
        path = Path(self.path)
        if not path.exists():
            raise self.error("there is no such file")
        if path.is_dir():
            raise self.error("this is a folder")
        if os.path.getsize(path) == 0:
            raise self.error("the file is empty (0 bytes)")

    def error(self, reason: str) -> DecodeError:
        """An error that names this file and stream."""
        return DecodeError(self.path, self._number, reason)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def opened(self) -> InputContainer:
        """The open file.

        Raises:
            DecodeError: it was closed.
        """
        if self._opened is None:
            raise self.error("the decoder is closed")
        return self._opened

    @property
    def indexed(self) -> bool:
        """Whether the format itself knows times and key frames, so that no scan is needed."""
        return self.opened.format.name.startswith(_INDEXED) and self.codec.name != "vp8"

    def _describe(self) -> VideoInfo:
        if not self.indexed:
            self.index()  # reads will need it, and reading it may open the file anew
        rotation = self._rotation()
        stream, opened = self.stream, self.opened
        size = (self.codec.width, self.codec.height)
        if 0 in size:
            raise self.error("its header does not give the size of the picture")
        width, height = size if rotation % 180 == 0 else size[::-1]
        duration, fps = self._header_duration(), float(stream.average_rate or stream.guessed_rate or 0)
        if duration <= 0 or fps <= 0:
            index = self.index()
            span = float(int(np.ptp(index.pts)) * stream.time_base) if len(index.pts) else 0.0
            fps = fps if fps > 0 else (len(index.pts) - 1) / span if span else 1.0
            duration = duration if duration > 0 else span + 1 / fps if span else index.count / fps
        return VideoInfo(
            path=self.path,
            stream=self._number,
            stream_index=stream.index,
            codec=self.codec.name,
            pixel_format=self.codec.pix_fmt or "",
            width=width,
            height=height,
            rotation=rotation,
            fps=fps,
            duration=duration,
            num_frames=stream.frames or None,
            num_video_streams=len(opened.streams.video),
            has_audio=bool(opened.streams.audio),
        )

    def _rotation(self) -> int:
        """Degrees clockwise, as the first frame says; it is decoded only when the header mentions a display matrix.

        FFmpeg describes the header in its log, so an empty description means that logging was turned down.
        """
        header = self.opened.dumps_format().lower().replace(" ", "")
        if header and "displaymatrix" not in header:
            return 0
        rotation = 0
        self.fresh = False
        with ErrorLog(), contextlib.suppress(StopIteration, IndexError, av.FFmpegError):
            rotation = next(self.opened.decode(self.stream)).rotation
        self.rewind()
        return round(-rotation / 90) % 4 * 90

    def _header_duration(self) -> float:
        """Seconds by the header, or 0; without an index FFmpeg would guess, from the bit rate or the last packets."""
        if not self.indexed:
            return 0.0
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        end = (self.opened.duration or 0) / av.time_base  # Matroska: of all streams, and counted from zero
        return end - float((self.stream.start_time or 0) * self.stream.time_base)

    @cached_property
    def first(self) -> int:
        """When the first frame is shown, in ticks: the zero of all times."""
        known = self.indexed and self.stream.start_time is not None
        return self.stream.start_time if known else int(min(self.index().pts, default=0))

    def index(self) -> PacketIndex:
        """All packets, read once."""
        if self._index is None:
            self.rewind()
            with ErrorLog() as log:
                packets = list(self.packets(log))
            self._index = PacketIndex.of(packets, self.codec.name, self.opened.format.name.startswith(_SEEKABLE))
            self._judge_end(packets)
            self.rewind()
        return self._index

    def _judge_end(self, packets: list[Packet]) -> None:
        """Whether the file holds fewer frames than its header promises."""
        promised = max(
            len(self.stream.index_entries) if self.indexed else 0, 0 if self.indexed else self.stream.frames
        )
        if not self.truncated and len(packets) < promised and len(packets) < self.stream.frames:
            self.truncated = f"{len(packets)} of {self.stream.frames} frames are there"

    @property
    def last(self) -> float:
        """When the last frame is shown, in ticks, if the file holds less than it promises; else infinity."""
        return int(max(self.index().pts, default=0)) if self.truncated else math.inf

    def key_before(self, ticks: int) -> int | None:
        """The time of the last key frame at or before ``ticks``, by the index; ``None`` when none is known."""
        if not self.indexed:
            index = self.index()
            found = int(index.keys.searchsorted(ticks, "right")) - 1
            return int(index.keys[found]) if found >= 0 else None
        entries = self.stream.index_entries
        found = entries.search_timestamp(ticks)
        return entries[found].timestamp if found >= 0 else None

    def rewind(self) -> None:
        """Go to the first packet, reopening a file that cannot seek."""
        if self.fresh:
            return
        with ErrorLog():
            try:
                self.opened.seek(_START, stream=self.stream)
            except av.FFmpegError:
                self._open()
        self.fresh = True

    def seek(self, ticks: int) -> None:
        """Go to a key frame at or before ``ticks``, or to the start."""
        if ticks <= self.first:
            self.rewind()
            return
        self.fresh = False
        with ErrorLog():
            try:
                self.opened.seek(ticks, stream=self.stream)
            except av.FFmpegError:
                self.rewind()

    def packets(self, log: ErrorLog) -> Iterator[Packet]:
        """Packets of the stream from the current place on; notes in ``truncated`` when the end is a broken one.

        ``log`` is one that the caller has entered.
        """
        errors, held = 0, None
        self.fresh = False
        while errors < _MAX_ERRORS:
            try:
                for packet in self.opened.demux(self.stream):
                    if packet.size:
                        if held is not None:
                            yield held
                        errors, held = 0, packet
                break
            except IndexError:
                continue  # PyAV on a packet of a stream that began after the file was opened
            except av.FFmpegError:
                errors += 1
        if errors or log.says(_PREMATURE):
            self.truncated = _ENDS_EARLY
        elif self._cut_in_transport():
            self.truncated = _ENDS_EARLY
            self.cut = held.pts if held is not None and held.pts is not None else math.nan
        if held is not None:
            yield held

    def _cut_in_transport(self) -> bool:
        """Whether an MPEG transport stream ends within one of its 188-byte packets."""
        return self.opened.format.name == "mpegts" and self.opened.size % 188 != 0
