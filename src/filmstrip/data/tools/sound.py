"""The sound of a video beside a new picture: its packets as they are where an mp4 file can hold them, otherwise
AAC."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av

from filmstrip.video.decoder import FrameFolder, VideoSource
from filmstrip.video.remote import RemoteFile, address_of

KEPT = frozenset(("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"))
"""Codecs of sound whose packets an mp4 file holds."""
_BIT_RATE = 128_000
"""Bits per second of sound that is encoded anew."""
_MAX_RATE = 48_000
"""Maximum samples per second of sound that is encoded anew."""


def _apart(source: VideoSource) -> Any:
    """What FFmpeg opens, which shares no position with other readers of the source."""
    if (address := address_of(source)) is not None:
        return RemoteFile(address)
    if isinstance(source, (str, Path, FrameFolder)):
        return f"file:{source}"
    position = source.tell()
    source.seek(0)
    try:
        return io.BytesIO(source.read())
    finally:
        source.seek(position)


class Sound:
    """The first stream of sound of a video; a context, at whose end its file is closed."""

    def __init__(self, source: VideoSource) -> None:
        self._file = av.open(_apart(source), metadata_errors="replace")
        self._stream = self._file.streams.audio[0]
        (video, *_) = self._file.streams.video
        start = None if video.start_time is None else video.start_time * video.time_base
        self._begins = Fraction(start or 0)
        """Time of the first picture, at which the copy begins, in seconds."""
        self._out: Any = None
        self._packets: Iterator[av.Packet] | None = None
        self._waiting: av.Packet | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add_to(self, container: av.container.OutputContainer) -> None:
        """Add the stream to a file that is written."""
        if self._stream.codec_context.name in KEPT:
            self._out = container.add_stream_from_template(self._stream, opaque=True)
            self._packets = self._copied()
        else:
            rate = min(self._stream.codec_context.sample_rate or _MAX_RATE, _MAX_RATE)
            self._out = container.add_stream("aac", rate=rate)
            self._out.codec_context.bit_rate = _BIT_RATE
            self._out.codec_context.layout = "mono" if self._stream.codec_context.channels == 1 else "stereo"
            self._packets = self._encoded(rate)

    def write_until(self, container: av.container.OutputContainer, second: float | None = None) -> None:
        """Write what is heard before a time, in seconds from the first picture; by default all that is left.

        Raises:
            av.FFmpegError: the sound is damaged in a way that cannot be written.
        """
        assert self._packets is not None, "added to a file before"
        while (packet := self._waiting or next(self._packets, None)) is not None:
            stamp = packet.dts if packet.dts is not None else packet.pts
            self._waiting = packet
            if second is not None and stamp is not None and float(stamp * packet.time_base) > second:
                return
            self._waiting = None
            container.mux(packet)

    def _copied(self) -> Iterator[av.Packet]:
        """The packets as they are, from the first picture on, in ascending order."""
        last = -1
        for packet in self._file.demux(self._stream):
            if packet.dts is None or packet.pts is None or packet.is_corrupt:
                continue
            shift = round(self._begins / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.dts > last and packet.pts >= 0:
                last = packet.dts
                packet.stream = self._out
                yield packet

    def _encoded(self, rate: int) -> Iterator[av.Packet]:
        """The sound as AAC, from the first picture on; what cannot be decoded is left out."""
        layout = self._out.codec_context.layout.name
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        last = -1
        for packet in self._file.demux(self._stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is None or frame.time < self._begins:
                    continue
                for piece in resampler.resample(frame):
                    piece.pts = None if piece.pts is None else piece.pts - round(self._begins * rate)
                    if piece.pts is not None and piece.pts > last:
                        last = piece.pts
                        yield from self._out.encode(piece)
        for piece in resampler.resample(None):
            yield from self._out.encode(piece)
        yield from self._out.encode(None)
