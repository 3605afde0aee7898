"""Delivery of decoded frames to the output positions of the requests that need them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from av.video.frame import VideoFrame

from filmstrip.video.convert import Converter
from filmstrip.video.decoder import Frames, Request, VideoInfo


class Sink:
    """Collects the output of one request."""

    def __init__(self, request: Request, info: VideoInfo):
        count = len(request.times)
        self._converter = Converter(info, request.crop, request.size)
        self._video: np.ndarray | None = None
        self._times = np.zeros(count)
        self._damaged = [False] * count

    def put(self, positions: list[int], frame: VideoFrame, time: float, damaged: bool) -> None:
        """Write one frame to output positions."""
        if self._video is None:  # not before a frame was decoded: a hostile header may state a huge size
            self._video = self._converter.allocate(len(self._times))
        self._converter(frame, self._video[positions[0]])
        for position in positions:
            if position != positions[0]:
                self._video[position] = self._video[positions[0]]
            self._times[position], self._damaged[position] = time, damaged

    def frames(self, truncated: str) -> Frames:
        """The output, after every position was written."""
        video = self._converter.allocate(0) if self._video is None else self._video
        return Frames(torch.from_numpy(video), self._times, tuple(self._damaged), truncated)


Arrival = tuple[VideoFrame, float, bool]
"""A frame, its presentation time in ticks of the stream's time base, and whether it is damaged."""

Slots = dict[int, list[int]]
"""Output positions of one frame, by the index of the sink."""


class Delivery:
    """Passes decoded frames, in ascending time, to the sinks that need them."""

    def __init__(self, sinks: list[Sink], first: int, scale: float, snap: bool):
        """Times are in ticks of ``scale`` seconds, counted from ``first``."""
        self.snap = snap
        self._sinks, self._first, self._scale = sinks, first, scale
        self._queue: deque[tuple[float, Slots]] = deque()
        self._latest: Arrival | None = None

    def run(self, wanted: Mapping[float, Slots], decoded: Iterable[Arrival]) -> None:
        """Deliver the frames that start at ``wanted`` ticks, with a substitute for one that the decoder does not
        output.

        Later calls need later frames. A frame lost before any was decoded is substituted by the next one, in a later
        run.
        """
        self._queue.extend(sorted(wanted.items(), key=lambda item: item[0]))
        for arrival in decoded:
            while self._queue and self._queue[0][0] < arrival[1]:
                self._stand_in(arrival)
            if self._queue and self._queue[0][0] == arrival[1]:
                self._put(self._queue.popleft()[1], *arrival)
            self._latest = arrival
        while self._queue and self._latest is not None:
            self._stand_in(self._latest)

    @property
    def complete(self) -> bool:
        """Whether every expected frame was delivered."""
        return not self._queue

    def _stand_in(self, arrival: Arrival) -> None:
        """Substitute a missing frame: the one that stays displayed or, when snapping, the nearest."""
        ticks, slots = self._queue.popleft()
        before = self._latest or arrival
        nearer = arrival if self.snap and arrival[1] - ticks < ticks - before[1] else before
        frame, shown, damaged = nearer
        self._put(slots, frame, shown, damaged or not self.snap)

    def _put(self, slots: Slots, frame: VideoFrame, ticks: float, damaged: bool) -> None:
        time = (ticks - self._first) * self._scale
        for number, positions in slots.items():
            self._sinks[number].put(positions, frame, time, damaged)
