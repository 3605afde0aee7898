"""Which frames a stream holds and when each is shown, found from its packets without decoding them.

Containers differ in what they say. Most give every packet the time when its frame is shown. AVI and ASF count packets
in decoding order and say nothing else; what FFmpeg then gives as presentation times are guesses, unique and wrong as
soon as there are B frames. There the order in which frames are shown follows from the coded pictures themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from filmstrip.video import h264

ABSURD = 1e6
"""Seconds from the other frames (eleven days) at which a time counts as damaged."""


_LARGEST = 2**52
"""Ticks that a double holds exactly; more is a damaged time."""


def possible(ticks: int | None) -> int | None:
    """A time stamp, or ``None`` for one that cannot be."""
    return ticks if ticks is not None and abs(ticks) < _LARGEST else None


class Stamp(NamedTuple):
    """What one packet says of itself."""

    pts: int | None
    dts: int | None
    is_key: bool
    is_shown: bool
    """Whether it brings a frame: not one that an edit list cuts out, nor the second half of one, nor a hidden one."""


@dataclass(frozen=True)
class Timeline:
    """All frames of a stream, in ticks of its time base."""

    starts: np.ndarray
    """When each frame is shown, ascending."""
    keys: np.ndarray
    """When each key frame is shown, ascending."""
    count: int
    """Frames, with or without a time."""
    regular: bool
    """Whether packets tell when their frames are shown; otherwise only decoding all of them does."""
    rate: float
    """Frames a tick: the mean, not what the header says. 0 where no times are known."""
    hidden: frozenset[int] = frozenset()
    """Presentation times of packets that bring no frame of their own."""
    ticks: dict[int, int] | None = field(default=None, repr=False)
    """From a packet's decoding time to when its frame is shown, where the container stores decoding times only."""

    @property
    def reordered(self) -> bool:
        """Whether frames are shown at other times than those of their packets, in another order."""
        return self.ticks is not None and any(dts != shown for dts, shown in self.ticks.items())

    @classmethod
    def of(cls, stamps: Sequence[Stamp], order: Sequence[int] | None, seekable: bool, absurd: float) -> Timeline:
        """The timeline of a stream's packets, in file order.

        ``order`` ranks the packets by when they are shown; ``None`` says that their own times do. ``seekable``
        says whether packets have the same times after a seek. Times ``absurd`` ticks from the others are damaged.
        """
        ticks = None
        if order is not None:
            shown_at = sorted(stamp.dts for stamp in stamps)
            ticks = {stamp.dts: shown_at[rank] for stamp, rank in zip(stamps, order)}
            stamps = [stamp._replace(pts=ticks[stamp.dts]) for stamp in stamps]
        shown = [stamp for stamp in stamps if stamp.is_shown]
        known = np.array([stamp.pts for stamp in shown if stamp.pts is not None], np.int64)
        sound = _near(known, absurd)
        starts = np.unique(sound)
        return cls(
            starts=starts,
            keys=np.unique(np.array([s.pts for s in shown if s.is_key and s.pts is not None], np.int64)),
            count=len(shown),
            regular=seekable and len(starts) == len(shown),
            rate=_rate([stamp.pts for stamp in shown], starts, absurd),
            hidden=frozenset(stamp.pts for stamp in stamps if not stamp.is_shown and stamp.pts is not None),
            ticks=ticks,
        )


class Scan:
    """Collects the stamps of a stream's packets, and what its codec's packets say of their order."""

    def __init__(self, stream: VideoStream, timed: bool):
        """``timed`` says whether the container stores presentation times."""
        self.stamps: list[Stamp] = []
        self._codec, self._timed = stream.codec_context.name, timed
        self._extradata = stream.codec_context.extradata
        self._reorders = stream.codec_context.has_b_frames
        self._sequence = h264.Sequence.of(self._extradata) if self._codec == "h264" else None
        self._field: h264.Picture | None = None
        self._kinds: list[str] = []
        self._pictures: list[h264.Picture | None] = []

    def add(self, packet: Packet) -> None:
        """Note the next packet, in file order."""
        is_shown = not packet.is_discard and not self._is_hidden(packet)
        self.stamps.append(Stamp(possible(packet.pts), possible(packet.dts), packet.is_keyframe, is_shown))
        if self._codec == "mpeg4" and (not self._timed or packet.pts is None):
            self._kinds.append(_coding_types(bytes(packet)))
        if self._sequence is not None and not self._timed:
            self._pictures.append(h264.picture(memoryview(packet), self._extradata, self._sequence))

    def timeline(self, seekable: bool, absurd: float) -> Timeline:
        """What all packets say together; see :meth:`Timeline.of`."""
        if self._timed and any(stamp.pts is not None for stamp in self.stamps):
            return Timeline.of(self.stamps, None, seekable, absurd)
        unique = len({stamp.dts for stamp in self.stamps} - {None}) == len(self.stamps)
        order = self._order() if unique else None
        if order is None:
            by_decoding = [stamp._replace(pts=stamp.dts) for stamp in self.stamps]
            return Timeline.of(by_decoding, None, False, absurd)
        return Timeline.of(self.stamps, order, seekable, absurd)

    def _is_hidden(self, packet: Packet) -> bool:
        if self._codec == "vp8":
            return not memoryview(packet)[0] & 16  # ``show_frame`` (RFC 6386, 9.1)
        if self._sequence is None or self._sequence.progressive:
            return False
        now = h264.picture(memoryview(packet), self._extradata, self._sequence)
        second = h264.is_second_field(self._field, now)
        self._field = None if second else now
        return second

    def _order(self) -> list[int] | None:
        """The rank of each packet among all by when it is shown; ``None`` where its codec does not tell."""
        if self._codec == "h264":
            plain = self._sequence is not None and len(self._pictures) == len(self.stamps)
            keys = h264.display_keys(self._pictures, self._sequence) if plain else None
            return keys and _ranks(keys)
        if self._codec == "mpeg4":
            plain = len(self._kinds) == len(self.stamps) and set(self._kinds) <= {"I", "P", "S", "B"}
            return _display_ranks(self._kinds) if plain else None
        return None if self._reorders else list(range(len(self.stamps)))


def _coding_types(data: bytes) -> str:
    """The types of the pictures in a packet of MPEG-4 Visual (ISO 14496-2, 6.2.5), one letter each."""
    return "".join("IPBS"[part[0] >> 6] for part in data.split(b"\0\0\1\xb6")[1:] if part)


def _display_ranks(kinds: Sequence[str]) -> list[int]:
    """When each picture is shown: B pictures at once, every other one when the next such picture arrives."""
    shown, waiting = [], None
    for number, kind in enumerate(kinds):
        if kind == "B":
            shown.append(number)
            continue
        if waiting is not None:
            shown.append(waiting)
        waiting = number
    return _ranks_of(shown if waiting is None else [*shown, waiting])


def _ranks(values: Sequence[tuple[int, int]]) -> list[int]:
    return _ranks_of(sorted(range(len(values)), key=values.__getitem__))


def _ranks_of(order: Sequence[int]) -> list[int]:
    ranks = [0] * len(order)
    for rank, number in enumerate(order):
        ranks[number] = rank
    return ranks


def _near(values: np.ndarray, absurd: float) -> np.ndarray:
    """Those that are not ``absurd`` far from most of the others."""
    return values[np.abs(values - np.median(values)) <= absurd] if len(values) else values


def _rate(pts: Sequence[int | None], starts: np.ndarray, absurd: float) -> float:
    """Frames a tick: the mean where all times are known, else the slope through those that are."""
    if len(starts) < 2:
        return 0.0
    if len(starts) == len(pts):
        return (len(starts) - 1) / int(starts[-1] - starts[0])
    middle = np.median(starts)
    known = [(place, value) for place, value in enumerate(pts) if value is not None and abs(value - middle) <= absurd]
    places, values = np.array(known, np.float64).T
    slope = np.polyfit(places - places.mean(), values - values.mean(), 1)[0] if np.ptp(places) else 0.0
    return 1 / slope if slope > 0 else (len(starts) - 1) / int(starts[-1] - starts[0])


def repair_times(
    pts: Sequence[int | None], dts: Sequence[int | None], step: float, absurd: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending times of frames that were decoded in display order, from stamps that are missing or out of order.

    As players do, trusts whichever of the two kinds of stamp steps back less often, drops those that do step back or
    are ``absurd`` ticks from the others, and spaces the frames without a stamp evenly between their neighbours;
    ``step`` apart where there are none. Also says which frames had a time that was absurd.
    """
    stamps = min(pts, dts, key=lambda series: (_faults(series), list(series).count(None)))
    known = [stamp for stamp in stamps if stamp is not None]
    middle = float(np.median(known)) if known else 0.0
    odd = np.array([stamp is not None and abs(stamp - middle) > absurd for stamp in stamps], bool)
    positions, values = [], []
    for position, value in enumerate(stamps):
        if value is not None and not odd[position] and (not values or value > values[-1]):
            positions.append(position)
            values.append(value)
    if len(values) < 2:
        return np.arange(len(stamps)) * step + (values[0] - positions[0] * step if values else 0), odd
    step = (values[-1] - values[0]) / (positions[-1] - positions[0])
    times = np.interp(np.arange(len(stamps)), positions, values)
    head, tail = np.arange(positions[0]), np.arange(positions[-1] + 1, len(stamps))
    times[head] = values[0] + (head - positions[0]) * step
    times[tail] = values[-1] + (tail - positions[-1]) * step
    return times, odd


def _faults(stamps: Sequence[int | None]) -> int:
    known = [stamp for stamp in stamps if stamp is not None]
    return sum(later <= earlier for earlier, later in itertools.pairwise(known)) if known else len(stamps)
