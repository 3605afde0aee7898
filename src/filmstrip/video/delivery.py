"""Where decoded frames go: each to the places of the requests that asked for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from av.video.frame import VideoFrame

from filmstrip.video.convert import Converter
from filmstrip.video.decoder import Frames, Request, VideoInfo


class Sink:
    """Collects the answer to one request."""

    def __init__(self, request: Request, info: VideoInfo):
        count = len(request.times)
        self._converter = Converter(info, request.crop, request.size)
        self._video: np.ndarray | None = None
        self._times = np.zeros(count)
        self._damaged = [False] * count

    def put(self, places: list[int], frame: VideoFrame, time: float, damaged: bool) -> None:
        """Write one frame to some places of the answer."""
        if self._video is None:  # not before a frame was decoded: a hostile header may promise a huge one
            self._video = self._converter.allocate(len(self._times))
        self._converter(frame, self._video[places[0]])
        for place in places:
            if place != places[0]:
                self._video[place] = self._video[places[0]]
            self._times[place], self._damaged[place] = time, damaged

    def frames(self, truncated: str) -> Frames:
        """The answer, once every place was written."""
        video = self._converter.allocate(0) if self._video is None else self._video
        return Frames(torch.from_numpy(video), self._times, tuple(self._damaged), truncated)


Arrival = tuple[VideoFrame, float, bool]
"""A frame, when it is shown in ticks of the stream's time base, and whether it is damaged."""

Slots = dict[int, list[int]]
"""Places of the answer that one frame goes to, by the sink's number."""


class Delivery:
    """Hands frames, as they come out of the decoder in ascending time, to the sinks that wait for them."""

    def __init__(self, sinks: list[Sink], first: int, scale: float, snap: bool):
        """Times are in ticks of ``scale`` seconds, counted from ``first``."""
        self.snap = snap
        self._sinks, self._first, self._scale = sinks, first, scale
        self._queue: deque[tuple[float, Slots]] = deque()
        self._latest: Arrival | None = None

    def run(self, wanted: Mapping[float, Slots], decoded: Iterable[Arrival]) -> None:
        """Deliver the frames that begin at ``wanted`` ticks; one that the decoder does not give gets a stand-in.

        Later calls want later frames. A frame lost before any was decoded waits for the next one, in a later run.
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
        """For a frame that did not come: the one that stays on screen, or when snapping the nearest."""
        ticks, slots = self._queue.popleft()
        before = self._latest or arrival
        nearer = arrival if self.snap and arrival[1] - ticks < ticks - before[1] else before
        frame, shown, damaged = nearer
        self._put(slots, frame, shown, damaged or not self.snap)

    def _put(self, slots: Slots, frame: VideoFrame, ticks: float, damaged: bool) -> None:
        time = (ticks - self._first) * self._scale
        for number, places in slots.items():
            self._sinks[number].put(places, frame, time, damaged)
