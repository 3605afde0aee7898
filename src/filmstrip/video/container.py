"""One video stream of one file through libavformat: opening, seeking, packets, and their errors."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from filmstrip.video.damage import ErrorLog
from filmstrip.video.decoder import DecodeError, VideoInfo, VideoSource
from filmstrip.video.h264 import Sequence
from filmstrip.video.packets import ABSURD, Scan, Timeline
from filmstrip.video.truncation import ENDS_EARLY, ends_in_zeros, ends_logical_streams

_INDEXED = "mov,mp4"
"""The format whose header lists every packet, so that opening a file need not read them all."""

_SEEKABLE = (_INDEXED, "matroska", "mpegts", "avi", "flv", "asf")
"""Formats whose packets have the same times after a seek; others are decoded from the start."""

_UNTIMED = ("avi", "asf")
"""Formats without presentation times: those that FFmpeg provides are guesses."""

_RAW = ("h264", "hevc", "mpegvideo", "m4v", "vc1", "h263", "h261", "cavsvideo", "dirac", "mjpeg", "obu")
"""Raw codec streams without any times: frames follow each other at the codec's rate."""

_WITH_DURATION = ("matroska", "flv", "asf")
"""Formats whose header stores the duration of the longest stream."""

_START = -(2**62)
"""Ticks before every packet."""

_PREMATURE = "ended prematurely"
"""FFmpeg's message on a truncated Matroska file."""

_GUESSED_DURATION = "Estimating duration"
"""FFmpeg's message when the header has no duration."""

_MAX_ERRORS = 3
"""Consecutive reading errors after which a file is considered ended: damage is skipped, a truncated end is not."""

_SAME_RATE = 0.1
"""Maximum relative difference between an estimated frame rate and the header's to accept the header's."""

_TOLERANCE = 0.5
"""Maximum seconds by which intact files end before the header's duration."""

_LEAST = 0.05
"""The same for files that end in zeros, as interrupted downloads do."""


class Container:
    """An open file and one of its video streams."""

    def __init__(self, source: VideoSource, stream: int, threads: int):
        self._source, self._number, self._threads = source, stream, threads
        self.path = str(source) if isinstance(source, (str, Path)) else str(getattr(source, "name", "<memory>"))
        self.truncated = ""
        """Reason why the file is known to end early; found at its end, or from its header."""
        self.cut = math.nan
        """Time of the packet that the end truncates, if the format returns such packets."""
        self._missing = 0
        self._head: tuple[int | None, ...] | None = None
        self._rewinds: bool | None = None
        self._timeline: Timeline | None = None
        self._opened: InputContainer | None = None
        self._open()
        try:
            self.info = self._describe()
        except BaseException:
            self.close()
            raise

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
        if log.says(_PREMATURE):
            self.truncated = ENDS_EARLY
        self._says_duration = self.format.startswith(_WITH_DURATION) and not log.says(_GUESSED_DURATION)
        videos = [s for s in self._opened.streams.video if not s.disposition & Disposition.attached_pic]
        # Default streams, which players show, come first.
        videos.sort(key=lambda s: not s.disposition & Disposition.default)
        if self._number >= len(videos):
            held = ", ".join(s.type for s in self._opened.streams) or "none"
            self.close()
            raise self.error(f"the file has {len(videos)} video streams (all its streams: {held})")
        self._stream: VideoStream = videos[self._number]
        if self._stream.codec_context is None:
            self.close()
            raise self.error("FFmpeg has no decoder for its codec")
        self.codec.thread_count = self._threads
        self.codec.thread_type = "SLICE" if self._threads == 1 else "AUTO"
        self.codec.copy_opaque = True  # so that frames identify their packet
        self.fresh = True
        # DivX and XviD may pack a B frame with the frame before it: unpack to one picture per packet.
        unpacks = self.codec.name == "mpeg4" and self.is_untimed
        self._unpack = BitStreamFilterContext("mpeg4_unpack_bframes", self.stream) if unpacks else None

    def _check_file(self) -> None:
        path = Path(self.path)
        if not path.exists():
            raise self.error("there is no such file")
        if path.is_dir():
            raise self.error("this is a folder")
        if os.path.getsize(path) == 0:
            raise self.error("the file is empty (0 bytes)")

    def error(self, reason: str) -> DecodeError:
        """An error with this file and stream."""
        return DecodeError(self.path, self._number, reason)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            if self._threads != 1 and self._stream.codec_context is not None and self.codec.is_open:
                self.codec.flush_buffers()  # or closing deadlocks, holding the GIL, with threads that log
            self._opened.close()
            self._opened = None

    @property
    def opened(self) -> InputContainer:
        """The open file.

        Raises:
            DecodeError: the file was closed.
        """
        if self._opened is None:
            raise self.error("the decoder is closed")
        return self._opened

    @property
    def stream(self) -> VideoStream:
        """The stream of the currently open file; FFmpeg frees it together with the file.

        Raises:
            DecodeError: the file was closed.
        """
        self.opened  # noqa: B018
        return self._stream

    @property
    def codec(self) -> av.VideoCodecContext:
        """The stream's decoder.

        Raises:
            DecodeError: the file was closed.
        """
        return self.stream.codec_context

    @property
    def format(self) -> str:
        """FFmpeg's names of the container's format, joined by commas."""
        return self.opened.format.name

    @property
    def is_untimed(self) -> bool:
        """Whether the format stores decoding times only."""
        return self.format.startswith(_UNTIMED)

    @property
    def is_raw(self) -> bool:
        """Whether the format stores no times at all."""
        return self.format in _RAW

    @property
    def scanned(self) -> Timeline | None:
        """The timeline, if all packets were read already."""
        return self._timeline

    def _has_index(self) -> bool:
        """Whether the header lists times and key frames of all frames, so that no scan is needed.

        A fragmented file lists none, and with field-coded pictures a packet may hold half a frame.
        """
        if not self.format.startswith(_INDEXED) or not self.stream.frames or self.codec.name == "vp8":
            return False
        sequence = Sequence.of(self.codec.extradata) if self.codec.name == "h264" else None
        return sequence is None or sequence.progressive

    def _describe(self) -> VideoInfo:
        has_index = self._has_index()
        if has_index:
            self._count_behind_end()
        if not has_index or self.truncated:
            self.timeline()
        rotation = self._rotation()
        stream, opened = self.stream, self.opened  # reading packets and the first frame may have reopened it
        size = (self.codec.width, self.codec.height)
        if 0 in size:
            raise self.error("its header has no picture size")
        width, height = size if rotation % 180 == 0 else size[::-1]
        fps, duration = self._rate_and_duration()
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
            truncated=self.truncated,
            num_missing=self._missing,
        )

    def _rotation(self) -> int:
        """Degrees clockwise, from the first frame, which is decoded only if the header mentions a display matrix.

        FFmpeg describes the header through its log, so an empty description means that logging was disabled.
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

    def _rate_and_duration(self) -> tuple[float, float]:
        """Mean frames per second, and duration in seconds: from the times of all frames if known."""
        scale = float(self.stream.time_base)
        rates = self.stream.average_rate, self.stream.guessed_rate
        # For a raw codec stream the average is FFmpeg's default, and the guess is the codec's own value.
        header = float(next(filter(None, reversed(rates) if self.is_raw else rates), 0))
        if self._timeline is None:
            duration = float((self.stream.duration or 0) * self.stream.time_base)
            if header > 0 and duration > 0:
                return header, duration
        timeline = self.timeline()
        fps = (0.0 if self.is_raw else timeline.rate / scale) or header or 1.0
        if len(timeline.starts) < timeline.count and abs(fps - header) < _SAME_RATE * fps:
            fps = header  # with missing times, their slope is only an estimate
        if timeline.regular:
            return fps, float(timeline.starts[-1] - timeline.starts[0]) * scale + 1 / fps if timeline.count else 0.0
        return fps, timeline.count / fps

    @property
    def absurd(self) -> float:
        """Distance from the other frames, ticks, at which a time is considered damaged."""
        return ABSURD / float(self.stream.time_base)

    @property
    def first(self) -> int:
        """Presentation time of the first frame, ticks: the origin of all times."""
        if self._timeline is None and self.stream.start_time is not None:
            return self.stream.start_time
        starts = self.timeline().starts
        return int(starts[0]) if len(starts) else 0

    def timeline(self) -> Timeline:
        """The timeline of all packets, which are read once and not kept."""
        if self._timeline is None:
            self._timeline = self._scan()
        return self._timeline

    def _scan(self) -> Timeline:
        self.rewind()
        scan, end = Scan(self.stream, not self.is_untimed), 0.0
        others = self.opened.streams.audio if self._says_duration else ()
        with ErrorLog() as log:
            for packet in self.packets(log, *others):
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is not None:
                    end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index == self.stream.index:
                    self._head = self._head or _mark(packet)
                    scan.add(packet)
            timeline = scan.timeline(self.format.startswith(_SEEKABLE), self.absurd)
        self._judge_end(timeline, scan, end)
        self.rewind()
        return timeline

    def _judge_end(self, timeline: Timeline, scan: Scan, end: float) -> None:
        """Determine whether the file is shorter than its header states; the last packet of any stream ends at
        ``end``."""
        if self.format.startswith("avi"):
            # The header counts dropped frames too, which have a time but no packet.
            there = max((stamp.dts for stamp in scan.stamps if stamp.dts is not None), default=-1) + 1
            self._note_missing(self.stream.frames - there)
        elif self.format.startswith(_INDEXED):
            self._note_missing(self.stream.frames - len(scan.stamps))
        elif self._says_duration and self.opened.duration:
            lacking = self.opened.duration / av.time_base - end
            tolerance = _LEAST if ends_in_zeros(self._source) else _TOLERANCE
            if lacking > tolerance and (fps := timeline.rate / float(self.stream.time_base)):
                self._note_missing(round(lacking * fps))
        elif self.format.startswith("ogg") and not ends_logical_streams(self._source):
            self.truncated = self.truncated or ENDS_EARLY

    def _count_behind_end(self) -> None:
        """Record the packets that the header lists beyond the end of the file."""
        size = self.opened.size
        if size > 0:
            self._note_missing(sum(entry.pos + entry.size > size for entry in self.stream.index_entries))

    def _note_missing(self, count: int) -> None:
        if count > 0:
            self._missing = count
            frames = "1 frame is" if count == 1 else f"{count} frames are"
            self.truncated = f"{ENDS_EARLY} ({frames} missing according to its header)"

    @property
    def last(self) -> float:
        """Presentation time of the last frame, ticks, if the file ends early; else infinity."""
        if not self.truncated:
            return math.inf
        starts = self.timeline().starts
        return int(starts[-1]) if len(starts) else 0

    def key_before(self, ticks: int) -> int | None:
        """The time of the last key frame at or before ``ticks``; ``None`` when none is known."""
        if self._timeline is not None:
            keys = self._timeline.keys
            found = int(keys.searchsorted(ticks, "right")) - 1
            return int(keys[found]) if found >= 0 else None
        entries = self.stream.index_entries
        found = entries.search_timestamp(ticks)
        return entries[found].timestamp if found >= 0 else None

    def rewind(self) -> None:
        """Seek to the first packet, reopening a file that cannot seek."""
        if self.fresh:
            return
        self._flush()
        with ErrorLog():
            try:
                self.opened.seek(_START, stream=self.stream)
            except av.FFmpegError:
                self._open()
        self.fresh = True

    def restart(self, anew: bool) -> None:
        """Go to the first packet, reopening if necessary: seeking may skip packets whose times are damaged.

        With ``anew`` the decoder is a new one too: flushing leaves some with state that corrupts what follows.
        """
        if self._rewinds is None and not anew:
            self._rewinds = self._leads_to_first_packet()
        if anew or not self._rewinds:
            self._open()
        else:
            self.rewind()

    def _leads_to_first_packet(self) -> bool:
        """Whether rewinding goes to the packet that came first when all were read: opening anew can be slow."""
        self.rewind()
        self.fresh = False
        with ErrorLog(), contextlib.suppress(IndexError, av.FFmpegError):
            return self._head == next((_mark(p) for p in self.opened.demux(self.stream) if p.size), None)
        return False

    def seek(self, ticks: int) -> None:
        """Seek to a key frame at or before ``ticks``, or to the start."""
        if ticks <= self.first:
            self.rewind()
            return
        self.fresh = False
        self._flush()
        with ErrorLog():
            try:
                self.opened.seek(ticks, stream=self.stream)
            except av.FFmpegError:
                self.rewind()

    def _flush(self) -> None:
        if self._unpack is not None:
            self._unpack.flush()

    def packets(self, log: ErrorLog, *others: av.stream.Stream) -> Iterator[Packet]:
        """Packets of the stream (and of ``others``) from the current position on, with the times of the timeline.

        Records an early end in ``truncated``. ``log`` must be entered by the caller.
        """
        errors, held = 0, None
        self.fresh = False
        while errors < _MAX_ERRORS:
            try:
                for packet in self.opened.demux(self.stream, *others):
                    if packet.size:
                        if held is not None:
                            yield from self._timed(held)
                        errors, held = 0, packet
                break
            except IndexError:
                continue  # PyAV's error on a packet of a stream that started after the file was opened
            except av.FFmpegError:
                errors += 1
        if errors or log.says(_PREMATURE):
            self.truncated = self.truncated or ENDS_EARLY
        elif self._cut_in_transport():
            self.truncated = self.truncated or ENDS_EARLY
            self.cut = held.pts if held is not None and held.pts is not None else math.nan
        if held is not None:
            yield from self._timed(held)
        if self._unpack is not None:
            yield from map(self._stamped, self._unpack.filter(None))
            self._unpack.flush()

    def _timed(self, packet: Packet) -> Iterator[Packet]:
        """A packet as input for the decoder: one picture, with its presentation time."""
        if self._unpack is None or packet.stream_index != self.stream.index:
            yield self._stamped(packet)
            return
        try:
            yield from map(self._stamped, self._unpack.filter(packet))
        except av.FFmpegError:
            yield self._stamped(packet)

    def _stamped(self, packet: Packet) -> Packet:
        if self._timeline is not None and self._timeline.ticks is not None:
            packet.pts = self._timeline.ticks.get(packet.dts)
        return packet

    def _cut_in_transport(self) -> bool:
        """Whether an MPEG transport stream ends within one of its 188-byte packets."""
        return self.format == "mpegts" and self.opened.size % 188 != 0


def _mark(packet: Packet) -> tuple[int | None, ...]:
    """What tells a packet from others."""
    return packet.pos, packet.dts
