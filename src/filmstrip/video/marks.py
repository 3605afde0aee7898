"""What is known of packets, carried to the frames that they become: when each is shown, and whether it is damaged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import av
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame

from filmstrip.video.damage import is_disposable
from filmstrip.video.delivery import Arrival


class Contradiction(Exception):
    """What is believed of the file's times is not what its packets or the decoder say: believe less."""


@dataclass(eq=False)
class _Expected:
    """A packet whose frame has not come yet."""

    packet: Packet
    is_first: bool
    """Whether decoding began with it."""
    damaged: bool = False


class Marks:
    """Carries times and damage from packets, in decoding order, to the frames that they become, as shown."""

    def __init__(self, codec: av.VideoCodecContext, strict: bool):
        """``strict`` says that each frame must come from one packet that says when it is shown."""
        self._codec, self._strict = codec, strict
        self._waiting: dict[object, _Expected] = {}
        self._due: set[int] = set()
        """When the frames are shown that must come."""
        self._current: _Expected | None = None
        self._start = self._latest = -math.inf
        self._spoiled = self._broken = False

    def expects(self, packet: Packet, decoded: bool) -> None:
        """Note a packet that is to bring a frame, before it is ``decoded``, or skipped.

        What is shown before the key frame that decoding begins at may need others that came before: it need not come.
        """
        if self._strict and packet.pts is None and not packet.is_discard:
            raise Contradiction
        if is_first := self._current is None:
            self._start = -math.inf if packet.pts is None else packet.pts
        if self._strict and decoded and not packet.is_discard and packet.pts >= self._start:
            self._due.add(packet.pts)
        self._current = _Expected(packet, is_first)
        # A new object for each packet: PyAV takes equal ones for the same, and forgets them together. It must not
        # lead back to the packet, which would then keep itself alive.
        packet.opaque = tag = object()
        self._waiting[tag] = self._current

    def fed(self, broken: bool, damaged: bool) -> None:
        """Note whether decoding the latest packet, or one that completes its frame, or what it needs, went wrong."""
        self._broken = self._broken or broken
        if self._current is not None:
            self._current.damaged |= broken or damaged

    def shown(self, frame: VideoFrame) -> Arrival | None:
        """A frame with its time and mark; one that the decoder calls corrupt spoils what is predicted from it."""
        expected = self._waiting.pop(frame.opaque, None)
        self._broken = self._broken or frame.is_corrupt
        if self._strict and not self._is_due(expected, frame):
            return None
        self._spoiled = self._spoiled and not frame.key_frame
        corrupt = frame.is_corrupt or self._spoiled or (expected is not None and expected.damaged)
        if frame.is_corrupt and not (expected is not None and is_disposable(expected.packet, self._codec)):
            self._spoiled = True
        return frame, (expected.packet.pts if self._strict else 0), corrupt

    def _is_due(self, expected: _Expected | None, frame: VideoFrame) -> bool:
        """Whether a frame came as its packet said; if not, then because concealing an error brought another one."""
        if expected is not None and expected.is_first and frame.pict_type in (PictureType.P, PictureType.B):
            raise Contradiction  # decoding began at what is only called a key frame
        if expected is None or expected.packet.pts <= self._latest:
            if self._broken:
                return False
            raise Contradiction
        self._latest = expected.packet.pts
        self._due.discard(self._latest)
        self.check(self._latest)
        return True

    def check(self, before: float = math.inf) -> None:
        """See that all frames came that were required and are shown ``before`` a time.

        Raises:
            Contradiction: one did not, though nothing went wrong.
        """
        if not self._broken and any(due < before for due in self._due):
            raise Contradiction
