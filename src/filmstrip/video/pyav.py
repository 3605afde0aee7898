"""The decoder on PyAV: seeks by key frame, decodes only what is asked for, and says what was damaged."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import av
import numpy as np
import torch
from av.packet import Packet
from av.video.frame import VideoFrame

from filmstrip.video.container import Container
from filmstrip.video.convert import Converter
from filmstrip.video.damage import ErrorLog, is_disposable
from filmstrip.video.decoder import ROUNDING, Box, Decoder, Frames, Request, Source, VideoInfo
from filmstrip.video.packets import repair_times
from filmstrip.video.sink import Arrival, Delivery, Sink, Slots

_MAX_REORDER = 16
"""Frames that can precede, in decoding order, one that is shown before them (H.264 and HEVC allow no more)."""

_WORTH_A_SEEK = 8
"""Frames that decode in about the time that seeking, and emptying the decoder before it, takes."""


class PyAVDecoder(Decoder):
    """See :class:`filmstrip.video.decoder.Decoder`. With several ``threads`` damage is placed less exactly."""

    def __init__(self, source: Source, *, stream: int = 0, threads: int = 1):
        self._container = Container(source, stream, threads)
        self._threads = threads
        self._scale = float(self._container.stream.time_base)
        self._sequence: np.ndarray | None = None

    @property
    def info(self) -> VideoInfo:
        """What the header says."""
        return self._container.info

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def times(self) -> np.ndarray:
        """When each frame begins, ascending float64 seconds; reads all packets, once.

        Raises:
            DecodeError: the stream holds no frames.
        """
        ticks = self._container.index().pts if self._regular else self._decoded_ticks()
        if not len(ticks):
            raise self._container.error("it holds no frames")
        return (ticks - self._container.first) * self._scale

    def key_times(self) -> np.ndarray:
        """When each key frame begins."""
        return (self._container.index().keys - self._container.first) * self._scale

    def read(self, requests: Sequence[Request], *, snap: bool = False) -> list[Frames]:
        """Answer several requests from one pass over the file; see :meth:`Decoder.read`.

        Raises:
            DecodeError: no frame could be decoded.
        """
        sinks = [Sink(request, self.info) for request in requests]
        delivery = Delivery(sinks, self._container.first, self._scale, snap)
        places = _places(requests, self._ticks)
        with ErrorLog(self._threads) as log:
            if self._regular:
                self._read_by_key(places, delivery, log)
            elif places:
                self._read_in_order(places, delivery, log)
            if not delivery.complete:
                raise self._container.error(f"no frame could be decoded: {log.last() or 'it holds none'}")
        return [sink.frames(self._container.truncated) for sink in sinks]

    def frames(
        self,
        start: float = 0.0,
        stop: float | None = None,
        *,
        box: Box | None = None,
        size: tuple[int, int] | None = None,
        chunk: int = 32,
    ) -> Iterator[Frames]:
        """All frames that begin in ``start <= time < stop``, in order, up to ``chunk`` at a time.

        Raises:
            DecodeError: the whole stream was asked for, and no frame of it could be decoded.
        """
        log = ErrorLog(self._threads)
        decoded = self._range(float(start), math.inf if stop is None else float(stop), log)
        converter = Converter(self.info, box, size)
        for number in itertools.count():
            with log:  # never held across a yield: captures nest like calls
                batch = list(itertools.islice(decoded, chunk))
                video = converter.allocate(len(batch))
                for image, (frame, _, _) in zip(video, batch):
                    converter(frame, image)
            if not batch:
                if number == 0 and start <= 0 and stop is None:
                    raise self._container.error(f"no frame could be decoded: {log.last() or 'it holds none'}")
                return
            times = np.array([self._seconds(ticks) for _, ticks, _ in batch])
            damaged = tuple(flag for _, _, flag in batch)
            yield Frames(torch.from_numpy(video), times, damaged, self._container.truncated)

    @property
    def _regular(self) -> bool:
        """Whether packets tell when their frames are shown; otherwise only decoding from the start does."""
        return self._container.indexed or self._container.index().regular

    def _seconds(self, ticks: float) -> float:
        return (ticks - self._container.first) * self._scale

    def _ticks(self, seconds: float) -> int:
        """The last tick that is not after a time but for rounding, and not before the first frame."""
        ticks = math.floor((seconds + ROUNDING) / self._scale) + self._container.first
        return max(self._container.first, min(ticks, self._container.last))

    def _range(self, start: float, stop: float, log: ErrorLog) -> Iterator[Arrival]:
        """Frames that begin in ``start <= time < stop``, in order."""
        if self._regular:
            packets = self._from_key(self._ticks(start), log)
            last = math.inf if math.isinf(stop) else self._ticks(stop)
            decoded = self._decode(_until(packets, last), log)
        else:
            decoded = self._decode_in_order(log)
        yield from (arrival for arrival in decoded if start <= self._seconds(arrival[1]) < stop)

    def _read_by_key(self, places: dict[int, Slots], delivery: Delivery, log: ErrorLog) -> None:
        """For each key frame that some time needs, decode from there to the last frame needed."""
        for run in self._runs(sorted(places)):
            packets = list(_until(self._from_key(run[0], log), run[-1]))
            shown = sorted(p.pts for p in packets if not p.is_discard)
            if not shown:
                continue
            wanted: dict[int, Slots] = {}
            for ticks in run:
                on_screen = shown[max(0, bisect.bisect_right(shown, ticks) - 1)]
                _merge(wanted.setdefault(on_screen, {}), places[ticks])
            end = 1 + max(i for i, packet in enumerate(packets) if packet.pts in wanted)
            delivery.run(wanted, self._decode(packets[:end], log, () if delivery.snap else wanted))

    def _read_in_order(self, places: dict[int, Slots], delivery: Delivery, log: ErrorLog) -> None:
        """Decode from the start: for streams whose packets do not tell when their frames are shown."""
        shown = self._decoded_ticks()
        wanted: dict[float, Slots] = {}
        for ticks, slots in places.items():
            if len(shown):
                _merge(wanted.setdefault(shown[max(0, shown.searchsorted(ticks, "right") - 1)], {}), slots)
        delivery.run(wanted, self._decode_in_order(log))

    def _runs(self, ticks: list[int]) -> Iterator[list[int]]:
        """Ascending times, split where a key frame lies far enough behind one of them to be worth a seek."""
        far = _WORTH_A_SEEK / self.info.fps / self._scale
        run: list[int] = []
        for tick in ticks:
            key = self._container.key_before(tick)
            if run and key is not None and key > run[-1] + far:
                yield run
                run = []
            run.append(tick)
        if run:
            yield run

    def _from_key(self, ticks: int, log: ErrorLog) -> Iterator[Packet]:
        """Packets in decoding order, from the last key frame that is shown at or before ``ticks``.

        Formats seek by decoding time, or to some packet nearby: where that landed too late, step back further.
        """
        container, back, target = self._container, 1.0, ticks
        while True:
            container.seek(target)
            started = container.fresh
            packets = container.packets(log)
            head = []
            for packet in packets:
                head.append(packet)
                if _stamp(packet) > ticks:
                    break
            keys = [i for i, p in enumerate(head) if p.is_keyframe and p.pts is not None and p.pts <= ticks]
            if keys or started:
                return itertools.chain(head[keys[-1] if keys else 0 :], packets)
            target = ticks - round(back / self._scale)
            back *= 2

    def _decode(
        self, packets: Iterable[Packet], log: ErrorLog, wanted: Collection[int] | None = None
    ) -> Iterator[Arrival]:
        """Frames in the order in which they are shown.

        With ``wanted``, frames that are not wanted and that no other depends on are not decoded. Damage lasts
        until the next key frame, because frames are predicted from each other.
        """
        codec = self._container.codec
        if codec.is_open:
            codec.flush_buffers()
        skipping, damaged = None, False
        marks = _Marks(codec)
        for packet in packets:
            if skipping != (skip := wanted is not None and packet.pts not in wanted):
                codec.skip_frame, skipping = ("NONREF" if skip else "DEFAULT"), skip
            damaged = damaged and not packet.is_keyframe
            log.damage()  # forget what reading the packet reported
            frames, failed = _feed(codec, packet)
            broken = log.damage() or failed or packet.is_corrupt or packet.pts == self._container.cut
            marks.fed(packet, broken or damaged)
            damaged = damaged or (broken and not is_disposable(packet, codec))
            yield from map(marks.shown, frames)
        yield from map(marks.shown, _feed(codec, None)[0])

    def _decode_in_order(self, log: ErrorLog) -> Iterator[Arrival]:
        """All frames from the start, with repaired times."""
        times = self._decoded_ticks()
        self._container.rewind()
        for (frame, _, damaged), ticks in zip(self._decode(self._container.packets(log), log), times):
            yield frame, ticks, damaged

    def _decoded_ticks(self) -> np.ndarray:
        """When each frame is shown, found by decoding all of them, once."""
        if self._sequence is None:
            self._container.rewind()
            with ErrorLog(self._threads) as log:
                stamps = [(f.pts, f.dts) for f, _, _ in self._decode(self._container.packets(log), log)]
            self._sequence = repair_times(
                [pts for pts, _ in stamps], [dts for _, dts in stamps], 1 / self.info.fps / self._scale
            )
        return self._sequence


class _Marks:
    """Carries damage from packets, in decoding order, to the frames that they become, in the order shown."""

    def __init__(self, codec: av.VideoCodecContext):
        self._codec = codec
        self._waiting: dict[int, tuple[Packet, bool]] = {}
        self._spoiled = False

    def fed(self, packet: Packet, damaged: bool) -> None:
        """Note whether decoding a packet went wrong."""
        self._waiting[_stamp(packet)] = packet, damaged

    def shown(self, frame: VideoFrame) -> Arrival:
        """A frame with its time and mark; one that the decoder calls corrupt spoils what is predicted from it."""
        packet, damaged = self._waiting.pop(_stamp(frame), (None, False))
        self._spoiled = self._spoiled and not frame.key_frame
        corrupt = frame.is_corrupt or self._spoiled or damaged
        self._spoiled = self._spoiled or (frame.is_corrupt and not (packet and is_disposable(packet, self._codec)))
        return frame, _stamp(frame), corrupt


def _feed(codec: av.VideoCodecContext, packet: Packet | None) -> tuple[list[VideoFrame], bool]:
    """The frames that a packet brings out of the decoder, and whether it failed; ``None`` drains the decoder."""
    try:
        return codec.decode(packet), False
    except av.FFmpegError:
        return [], True


def _stamp(data: Packet | VideoFrame) -> int:
    """The presentation time in ticks, or the decoding time where it is missing."""
    return data.pts if data.pts is not None else data.dts if data.dts is not None else 0


def _until(packets: Iterable[Packet], last: float) -> Iterator[Packet]:
    """Packets up to the last of a frame that is shown at or before ``last``, and a few more.

    Decoding times would tell exactly where to stop, but Matroska does not store them.
    """
    later = 0
    for packet in packets:
        later += _stamp(packet) > last
        if later > _MAX_REORDER:
            return
        yield packet


def _places(requests: Sequence[Request], to_ticks: Callable[[float], int]) -> dict[int, Slots]:
    """For each time asked for, in ticks: which places of which answer wait for it."""
    places: dict[int, Slots] = {}
    for number, request in enumerate(requests):
        for place, time in enumerate(request.times):
            places.setdefault(to_ticks(float(time)), {}).setdefault(number, []).append(place)
    return places


def _merge(slots: Slots, more: Slots) -> None:
    for number, places in more.items():
        slots.setdefault(number, []).extend(places)
