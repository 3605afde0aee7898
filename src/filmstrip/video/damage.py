"""FFmpeg's log messages during decoding: the only sign of concealed errors.

A slice that cannot be parsed is concealed from the previous frame without an error; the only trace is a message in
the log. PyAV passes messages to a capture in the thread that caused them.
"""

from __future__ import annotations

import logging

import av.logging
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from filmstrip.video.h264 import is_reference

_HARMLESS = (
    "mmco: unref short failure",  # after a seek the stream unreferences pictures that were never decoded
    "co located POCs unavailable",  # a B frame's neighbour precedes the key frame that decoding began at
)

if av.logging.get_level() is None:
    av.logging.set_level(av.logging.INFO)  # uncaptured messages go to Python's ``libav`` logger ...
logging.getLogger("libav").addHandler(logging.NullHandler())  # ... and not from there to the terminal
av.logging.set_skip_repeated(False)  # a message that repeats is another damaged frame


class ErrorLog:
    """Collects FFmpeg's errors while entered; :meth:`damage` returns whether there were any since its last call.

    ``threads``: number of decoder threads; with several, messages of all threads must be captured.
    """

    def __init__(self, threads: int = 1):
        self._capture = av.logging.Capture(local=threads == 1)
        self._logs = self._capture.logs
        self._seen = 0

    def __enter__(self) -> ErrorLog:
        self._capture.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.__exit__(None, None, None)

    def damage(self) -> bool:
        """Whether an error was logged since the last call."""
        if len(self._logs) == self._seen:
            return False
        news, self._seen = self._logs[self._seen :], len(self._logs)
        return any(level <= av.logging.ERROR and not text.startswith(_HARMLESS) for level, _, text in news)

    def says(self, words: str) -> bool:
        """Whether some message contains ``words``."""
        return any(words in text for _, _, text in self._logs)

    def last(self) -> str:
        """The last message, as the reason of an error; empty if there is none."""
        return self._logs[-1][2].strip() if self._logs else ""


def is_disposable(packet: Packet, codec: VideoCodecContext) -> bool:
    """Whether no other frame depends on this one, so that damage to it does not spread.

    Few H.264 containers state it, so the stream is parsed.
    """
    if packet.is_disposable or codec.name != "h264":
        return packet.is_disposable
    return not is_reference(memoryview(packet), codec.extradata)
