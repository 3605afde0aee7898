"""The frames of a stream and their presentation times, from its packets without decoding.

Most containers store the presentation time of every packet. AVI and ASF only number packets in decoding order; the
presentation times that FFmpeg then provides are guesses, wrong as soon as there are B frames. There the display order
is derived from the coded pictures themselves.
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
"""Distance from the other frames, seconds (eleven days), at which a time is considered damaged."""


_LARGEST = 2**52
"""Ticks that a double holds exactly; more is a damaged time."""


def possible(ticks: int | None) -> int | None:
    """A time stamp, or ``None`` for one that cannot be."""
    return ticks if ticks is not None and abs(ticks) < _LARGEST else None


class Stamp(NamedTuple):
    """Timestamps and flags of one packet."""

    pts: int | None
    dts: int | None
    is_key: bool
    is_shown: bool
    """Whether it yields a frame of its own: not one removed by an edit list, a second field, or an undisplayed
    one."""


@dataclass(frozen=True)
class Timeline:
    """All frames of a stream, in ticks of its time base."""

    starts: np.ndarray
    """Presentation time of each frame, ascending."""
    keys: np.ndarray
    """Presentation time of each key frame, ascending."""
    count: int
    """Number of frames, with or without a time."""
    regular: bool
    """Whether presentation times are known from packets; otherwise all frames must be decoded."""
    rate: float
    """Mean frames per tick, not the header's rate. 0 if no times are known."""
    hidden: frozenset[int] = frozenset()
    """Presentation times of packets that yield no frame of their own."""
    ticks: dict[int, int] | None = field(default=None, repr=False)
    """Presentation time by decoding time, if the container stores decoding times only."""

    @property
    def reordered(self) -> bool:
        """Whether frames are shown at other times than those of their packets, in another order."""
        return self.ticks is not None and any(dts != shown for dts, shown in self.ticks.items())

    @classmethod
    def of(cls, stamps: Sequence[Stamp], order: Sequence[int] | None, seekable: bool, absurd: float) -> Timeline:
        """The timeline of a stream's packets, in file order.

        ``order`` is the display rank of each packet; ``None`` to use their own times. ``seekable``: whether packets
        have the same times after a seek. Times ``absurd`` ticks from the others are considered damaged.
        """
        ticks = None
        if order is not None:
            shown_at = sorted(stamp.dts for stamp in stamps)
            ticks = {stamp.dts: shown_at[rank] for stamp, rank in zip(stamps, order)}
            stamps = [stamp._replace(pts=ticks[stamp.dts]) for stamp in stamps]
        shown = [stamp for stamp in stamps if stamp.is_shown]
        pts = [stamp.pts for stamp in shown]
        plausible = _plausible(pts, absurd)
        starts = np.unique(np.array([value for value, good in zip(pts, plausible) if good], np.int64))
        return cls(
            starts=starts,
            keys=np.unique(np.array([s.pts for s in shown if s.is_key and s.pts is not None], np.int64)),
            count=len(shown),
            regular=seekable and len(starts) == len(shown),
            rate=_rate(pts, plausible, starts),
            hidden=frozenset(stamp.pts for stamp in stamps if not stamp.is_shown and stamp.pts is not None),
            ticks=ticks,
        )


class Scan:
    """Collects the timestamps of a stream's packets, and their display order from the codec."""

    def __init__(self, stream: VideoStream, timed: bool):
        """``timed``: whether the container stores presentation times."""
        self.stamps: list[Stamp] = []
        self._codec, self._timed = stream.codec_context.name, timed
        self._extradata = stream.codec_context.extradata
        self._reorders = stream.codec_context.has_b_frames
        self._sequence = h264.Sequence.of(self._extradata) if self._codec == "h264" else None
        self._field: h264.Picture | None = None
        self._kinds: list[str] = []
        self._pictures: list[h264.Picture | None] = []

    def add(self, packet: Packet) -> None:
        """Add the next packet, in file order."""
        picture = None
        if self._sequence is not None and (not self._timed or not self._sequence.progressive):
            picture = h264.picture(memoryview(packet), self._extradata, self._sequence)
        is_shown = not packet.is_discard and not self._is_hidden(packet, picture)
        self.stamps.append(Stamp(possible(packet.pts), possible(packet.dts), packet.is_keyframe, is_shown))
        if self._codec == "mpeg4" and (not self._timed or packet.pts is None):
            self._kinds.append(_coding_types(bytes(packet)))
        if self._sequence is not None and not self._timed:
            self._pictures.append(picture)

    def timeline(self, seekable: bool, absurd: float) -> Timeline:
        """The timeline of all packets; see :meth:`Timeline.of`."""
        if self._timed and any(stamp.pts is not None for stamp in self.stamps):
            return Timeline.of(self.stamps, None, seekable, absurd)
        unique = len({stamp.dts for stamp in self.stamps} - {None}) == len(self.stamps)
        order = self._order() if unique else None
        if order is None:
            by_decoding = [stamp._replace(pts=stamp.dts) for stamp in self.stamps]
            return Timeline.of(by_decoding, None, False, absurd)
        return Timeline.of(self.stamps, order, seekable, absurd)

    def _is_hidden(self, packet: Packet, picture: h264.Picture | None) -> bool:
        if self._codec == "vp8":
            return not memoryview(packet)[0] & 16  # ``show_frame`` (RFC 6386, 9.1)
        if self._sequence is None or self._sequence.progressive:
            return False
        second = h264.is_second_field(self._field, picture)
        self._field = None if second else picture
        return second

    def _order(self) -> list[int] | None:
        """The display rank of each packet; ``None`` if the codec does not determine it."""
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
    """Display rank of each picture: B pictures at once, every other one when the next such picture arrives."""
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


def _plausible(stamps: Sequence[int | None], absurd: float) -> np.ndarray:
    """Whether each timestamp is known and at most ``absurd`` ticks from the median of the known ones."""
    known = [stamp for stamp in stamps if stamp is not None]
    median = float(np.median(known)) if known else 0.0
    return np.array([stamp is not None and abs(stamp - median) <= absurd for stamp in stamps], bool)


def _rate(pts: Sequence[int | None], plausible: np.ndarray, starts: np.ndarray) -> float:
    """Frames per tick: the mean if all times are known, else the slope through the plausible ones."""
    if len(starts) < 2:
        return 0.0
    if len(starts) == len(pts):
        return (len(starts) - 1) / int(starts[-1] - starts[0])
    positions = np.flatnonzero(plausible).astype(np.float64)
    values = np.array([value for value, good in zip(pts, plausible) if good], np.float64)
    slope = np.polyfit(positions - positions.mean(), values - values.mean(), 1)[0] if np.ptp(positions) else 0.0
    return 1 / slope if slope > 0 else (len(starts) - 1) / int(starts[-1] - starts[0])


def repair_times(
    pts: Sequence[int | None], dts: Sequence[int | None], step: float, absurd: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending times of frames decoded in display order, from timestamps that are missing or out of order.

    As players do, uses whichever of the two kinds of timestamp decreases less often, drops those that decrease or are
    ``absurd`` ticks from the others, and spaces frames without a timestamp evenly between their neighbours, or
    ``step`` apart. Also returns which frames had such an absurd time.
    """
    stamps = min(pts, dts, key=lambda series: (_faults(series), list(series).count(None)))
    plausible = _plausible(stamps, absurd)
    odd = np.array([stamp is not None for stamp in stamps], bool) & ~plausible
    positions, values = [], []
    for position, value in enumerate(stamps):
        if plausible[position] and (not values or value > values[-1]):
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
