"""Which frames a stream holds and when, found from its packets without decoding them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from av.packet import Packet

_HIDDEN_FRAMES = ("vp8",)
"""Codecs whose packets include frames that are never shown."""


@dataclass(frozen=True)
class PacketIndex:
    """All packets of a stream: presentation times of frames and key frames, ascending, in ticks of its time base."""

    pts: np.ndarray
    keys: np.ndarray
    count: int
    """Frames, with or without a time."""
    regular: bool
    """Whether packets carry the times of the frames they hold; otherwise only decoding tells them."""

    @classmethod
    def of(cls, packets: list[Packet], codec: str, seekable: bool) -> PacketIndex:
        """The index of a stream's packets, given in file order."""
        shown = [packet for packet in packets if not packet.is_discard]
        known = [packet.pts for packet in shown if packet.pts is not None]
        regular = seekable and len(set(known)) == len(shown) and codec not in _HIDDEN_FRAMES
        keys = [packet.pts for packet in shown if packet.is_keyframe and packet.pts is not None]
        return cls(np.unique(np.array(known, np.int64)), np.unique(np.array(keys, np.int64)), len(shown), regular)


def repair_times(pts: list[int | None], dts: list[int | None], step: float) -> np.ndarray:
    """Ascending times of frames that were decoded in display order, from stamps that are missing or out of order.

    As players do, trusts whichever of the two kinds of stamp steps back less often, drops those that do step back,
    and spaces the frames without a stamp evenly between their neighbours; ``step`` apart where there are none.
    """
    stamps = min(pts, dts, key=lambda series: (_faults(series), series.count(None)))
    positions, values = [], []
    for position, value in enumerate(stamps):
        if value is not None and (not values or value > values[-1]):
            positions.append(position)
            values.append(value)
    if len(values) < 2:
        return np.arange(len(pts)) * step + (values[0] if values else 0)
    step = (values[-1] - values[0]) / (positions[-1] - positions[0])
    times = np.interp(np.arange(len(pts)), positions, values)
    head, tail = np.arange(positions[0]), np.arange(positions[-1] + 1, len(pts))
    times[head] = values[0] + (head - positions[0]) * step
    times[tail] = values[-1] + (tail - positions[-1]) * step
    return times


def _faults(stamps: list[int | None]) -> int:
    known = [stamp for stamp in stamps if stamp is not None]
    return sum(later <= earlier for earlier, later in itertools.pairwise(known)) if known else len(stamps)
