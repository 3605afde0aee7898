"""The PyAV decoder: seeks by key frame, decodes only the requested frames, and reports damage.

It has three levels of trust in a file. If the header lists all packets, they are used as they are. Otherwise, or if
something is missing, all packets are read once, and their timeline is used. If that contradicts the decoder's output,
or packets do not determine presentation times, everything is decoded once for the times, and from the start for every
read: slow, but correct.
"""

from __future__ import annotations

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
from filmstrip.video.decoder import ROUNDING, Crop, Decoder, Frames, Request, VideoInfo, VideoSource
from filmstrip.video.delivery import Arrival, Delivery, Sink, Slots
from filmstrip.video.marks import Contradiction, Marks
from filmstrip.video.packets import possible, repair_times

_MAX_REORDER = 16
"""Maximum reordering delay, frames (H.264 and HEVC allow no more)."""

_WORTH_A_SEEK = 8
"""Number of frames whose decoding takes as long as flushing the decoder and seeking."""


class PyAVDecoder(Decoder):
    """See :class:`filmstrip.video.decoder.Decoder`. With several ``threads`` damage is located less exactly."""

    def __init__(self, source: VideoSource, *, stream: int = 0, threads: int = 1):
        self._container = Container(source, stream, threads)
        self._threads = threads
        self._scale = float(self._container.stream.time_base)
        self._contradicted = False
        self._sequence: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def info(self) -> VideoInfo:
        """Properties of the stream, without decoding."""
        return self._container.info

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def times(self) -> np.ndarray:
        """Start time of each frame, ascending float64 seconds; reads all packets, once.

        Raises:
            DecodeError: the stream holds no frames.
        """
        timeline = self._container.timeline()
        ticks = timeline.starts if self._regular else self._decoded_ticks()
        if not len(ticks):
            raise self._container.error("it holds no frames")
        return (ticks - self._first) * self._scale

    def key_times(self) -> np.ndarray:
        """Start time of each key frame, seconds."""
        keys = self._container.timeline().keys
        keys = keys[np.abs(keys - self._first) <= self._container.absurd]
        if not self._regular and len(keys):
            # After repair of packet times, key frames start where frames do.
            starts = self._decoded_ticks()
            keys = np.unique(starts[np.maximum(0, starts.searchsorted(keys, "right") - 1)])
        return (keys - self._first) * self._scale

    def read(self, requests: Sequence[Request], *, snap: bool = False) -> list[Frames]:
        """Answer several requests from one pass over the file; see :meth:`Decoder.read`.

        Raises:
            DecodeError: no frame could be decoded.
        """
        while True:
            try:
                return self._answer(requests, snap)
            except Contradiction:
                self._distrust()

    def _answer(self, requests: Sequence[Request], snap: bool) -> list[Frames]:
        sinks = [Sink(request, self.info) for request in requests]
        with ErrorLog(self._threads) as log:
            delivery = Delivery(sinks, self._first, self._scale, snap)
            positions = _positions(requests, self._ticks)
            if self._regular:
                self._read_by_key(positions, delivery, log)
            elif positions:
                self._read_in_order(positions, delivery, log)
            if not delivery.complete:
                raise self._container.error(f"no frame could be decoded: {log.last() or 'it holds none'}")
        return [sink.frames(self._container.truncated) for sink in sinks]

    def frames(
        self,
        start: float = 0.0,
        stop: float | None = None,
        *,
        crop: Crop | None = None,
        size: tuple[int, int] | None = None,
        chunk: int = 32,
    ) -> Iterator[Frames]:
        """All frames that begin in ``start <= time < stop``, in order, up to ``chunk`` at a time.

        Raises:
            DecodeError: the whole stream was requested, and no frame could be decoded.
        """
        log = ErrorLog(self._threads)
        decoded = self._range(float(start), math.inf if stop is None else float(stop), log)
        converter = Converter(self.info, crop, size)
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
            times = np.array([seconds for _, seconds, _ in batch])
            damaged = tuple(flag for _, _, flag in batch)
            yield Frames(torch.from_numpy(video), times, damaged, self._container.truncated)

    @property
    def works_out_times(self) -> bool:
        """Whether the times of frames are other than their packets say."""
        scanned = self._container.scanned
        return not self._regular or (scanned is not None and (bool(scanned.hidden) or scanned.reordered))

    @property
    def _regular(self) -> bool:
        """Whether presentation times are known from packets; otherwise only from decoding all."""
        scanned = self._container.scanned
        return not self._contradicted and (scanned is None or scanned.regular)

    def _distrust(self) -> None:
        """Lower the level of trust: from header to packets, then from packets to decoded frames."""
        if self._container.scanned is None:
            self._container.timeline()
        else:
            self._contradicted = True

    @property
    def _first(self) -> float:
        """Presentation time of the first frame, ticks: the origin of all times."""
        if self._regular:
            return self._container.first
        return self._decoded_ticks()[0] if len(self._decoded_ticks()) else 0

    def _seconds(self, ticks: float) -> float:
        return (ticks - self._first) * self._scale

    def _ticks(self, seconds: float) -> float:
        """A time in ticks, integers if known from packets, at least the first frame's."""
        ticks = (seconds + ROUNDING) / self._scale
        if not self._regular:
            return self._first + max(0.0, ticks)
        first = self._container.first
        return max(first, min(math.floor(ticks) + first, self._container.last))

    def _range(self, start: float, stop: float, log: ErrorLog) -> Iterator[tuple[VideoFrame, float, bool]]:
        """Frames that begin in ``start <= time < stop``, in order: each with its seconds, and its damage."""
        reached = -math.inf
        while True:
            try:
                for frame, ticks, damaged in self._decoded_range(start, stop, log):
                    if (seconds := self._seconds(ticks)) > reached and start <= seconds < stop:
                        reached = seconds
                        yield frame, seconds, damaged  # not ticks: where they are counted from may change below
                return
            except Contradiction:
                self._distrust()  # and go on behind what was given

    def _decoded_range(self, start: float, stop: float, log: ErrorLog) -> Iterator[Arrival]:
        if not self._regular:
            return self._decode_in_order(log)
        packets = self._from_key(self._ticks(start), log)
        last = math.inf if math.isinf(stop) else self._ticks(stop)
        return self._decode(_until(packets, last, self._hidden), log)

    def _read_by_key(self, positions: dict[int, Slots], delivery: Delivery, log: ErrorLog) -> None:
        """For each key frame needed, decode from there to the last requested frame."""
        for run in self._runs(sorted(positions)):
            packets = list(_until(self._from_key(run[0], log), run[-1], self._hidden))
            shown = self._shown(packets)
            wanted: dict[int, Slots] = {}
            for ticks in run:
                on_screen = int(shown[max(0, shown.searchsorted(ticks, "right") - 1)])
                _merge(wanted.setdefault(on_screen, {}), positions[ticks])
            where = [i for i, packet in enumerate(packets) if packet.pts in wanted]
            if len({packets[i].pts for i in where}) < len(wanted):
                raise Contradiction
            end = 1 + where[-1]
            while end < len(packets) and packets[end].pts in self._hidden:  # the second field of the last frame
                end += 1
            decoded = self._decode(packets[:end], log, () if delivery.snap else wanted)
            delivery.run(wanted, decoded)

    def _shown(self, packets: list[Packet]) -> np.ndarray:
        """Presentation times, ascending ticks, of all frames or, if the header suffices, those of ``packets``.

        Raises:
            DecodeError: there is no frame.
            Contradiction: no packet brings a frame, or one does not say when.
        """
        scanned = self._container.scanned
        if scanned is not None:
            if not len(scanned.starts):
                raise self._container.error("no frame could be decoded: it holds none")
            return scanned.starts
        shown = [packet.pts for packet in packets if not packet.is_discard]
        if not shown or None in shown:
            raise Contradiction
        return np.sort(np.array(shown, np.int64))

    def _read_in_order(self, positions: dict[int, Slots], delivery: Delivery, log: ErrorLog) -> None:
        """Decode from the start, for streams whose packets do not determine presentation times."""
        shown = self._decoded_ticks()
        wanted: dict[float, Slots] = {}
        for ticks, slots in positions.items():
            if len(shown):
                _merge(wanted.setdefault(shown[max(0, shown.searchsorted(ticks, "right") - 1)], {}), slots)
        if wanted:
            last = int(shown.searchsorted(max(wanted), "right"))
            delivery.run(wanted, itertools.islice(self._decode_in_order(log), last))

    def _runs(self, ticks: list[int]) -> Iterator[list[int]]:
        """Ascending times, split where seeking to a later key frame is cheaper than decoding on."""
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
        """Packets in decoding order, from the last key frame displayed at or before ``ticks``.

        Formats seek by decoding time, or to a nearby packet: if that is too late, seek further back.
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
        """Frames in display order, each with its packet's time.

        With ``wanted``, other non-reference frames are not decoded. Damage propagates to the next key frame, because
        frames are predicted from each other.

        Raises:
            Contradiction: nothing is wrong with a packet, and it brings no frame, or several, or not when it says.
        """
        codec, hidden = self._container.codec, self._hidden
        if codec.is_open:
            codec.flush_buffers()
        skipping, damaged = None, False
        marks = Marks(codec, self._regular)
        for packet in packets:
            if packet.pts not in hidden:
                if skipping != (skip := wanted is not None and packet.pts not in wanted):
                    codec.skip_frame, skipping = ("NONREF" if skip else "DEFAULT"), skip
                marks.expects(packet, not skip)
            damaged = damaged and not packet.is_keyframe
            log.damage()  # discard errors from reading the packet
            frames, failed = _feed(codec, packet)
            broken = log.damage() or failed or packet.is_corrupt or packet.pts == self._container.cut
            marks.fed(broken, damaged)
            damaged = damaged or (broken and not is_disposable(packet, codec))
            yield from filter(None, map(marks.shown, frames))
        yield from filter(None, map(marks.shown, _feed(codec, None)[0]))
        marks.check()

    @property
    def _hidden(self) -> Collection[int]:
        """Times of packets that yield no frame of their own."""
        scanned = self._container.scanned
        return scanned.hidden if self._regular and scanned is not None else ()

    def _decode_in_order(self, log: ErrorLog) -> Iterator[Arrival]:
        """All frames from the start, with repaired times; frames with an absurd time are marked damaged."""
        self._decoded_ticks()
        self._container.restart(anew=self._contradicted)
        for (frame, _, damaged), ticks, odd in zip(self._decode(self._container.packets(log), log), *self._sequence):
            yield frame, ticks, damaged or bool(odd)

    def _decoded_ticks(self) -> np.ndarray:
        """Presentation time of each frame, found by decoding all of them, once."""
        if self._sequence is None:
            self._container.restart(anew=self._contradicted)
            with ErrorLog(self._threads) as log:
                decoded = self._decode(self._container.packets(log), log)
                stamps = [(possible(frame.pts), possible(frame.dts)) for frame, _, _ in decoded]
            pts, dts = [pts for pts, _ in stamps], [dts for _, dts in stamps]
            if self._container.is_raw or self._container.is_untimed:
                # Of untimed formats the first displayed frame comes first, whichever packet it is from.
                known = () if self._container.is_raw else self._container.timeline().starts[: len(stamps)].tolist()
                pts = dts = [*known, *[None] * (len(stamps) - len(known))]
            self._sequence = repair_times(pts, dts, 1 / self.info.fps / self._scale, self._container.absurd)
        return self._sequence[0]


def _feed(codec: av.VideoCodecContext, packet: Packet | None) -> tuple[list[VideoFrame], bool]:
    """The frames that the decoder outputs for a packet, and whether it failed; ``None`` drains the decoder."""
    try:
        return codec.decode(packet), False
    except av.FFmpegError:
        return [], True


def _stamp(packet: Packet) -> int:
    """The presentation time in ticks, or the decoding time if it is missing."""
    return packet.pts if packet.pts is not None else packet.dts if packet.dts is not None else 0


def _until(packets: Iterable[Packet], last: float, hidden: Collection[int]) -> Iterator[Packet]:
    """Packets up to the last one displayed at or before ``last``, and a few more.

    Decoding times would determine exactly where to stop, but Matroska does not store them.
    """
    later = 0
    for packet in packets:
        later += _stamp(packet) > last and packet.pts not in hidden
        if later > _MAX_REORDER:
            return
        yield packet


def _positions(requests: Sequence[Request], to_ticks: Callable[[float], float]) -> dict[float, Slots]:
    """For each requested time, in ticks: the positions in each request's output."""
    positions: dict[float, Slots] = {}
    for number, request in enumerate(requests):
        for position, time in enumerate(request.times):
            positions.setdefault(to_ticks(float(time)), {}).setdefault(number, []).append(position)
    return positions


def _merge(slots: Slots, more: Slots) -> None:
    for number, positions in more.items():
        slots.setdefault(number, []).extend(positions)
