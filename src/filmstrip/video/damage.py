"""What FFmpeg says while it decodes: the only sign that it concealed an error.

A slice that does not parse is patched over from the previous frame and handed out as if nothing had happened; the
one trace is a message in the log. PyAV gives messages to whoever captures them, in the thread that caused them.
"""

from __future__ import annotations

import logging

import av.logging
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from filmstrip.video.h264 import is_reference

_HARMLESS = (
    "mmco: unref short failure",  # after a jump the decoder is told to forget pictures that it never saw
    "co located POCs unavailable",  # a B frame's neighbour precedes the key frame that decoding began at
)

if av.logging.get_level() is None:
    av.logging.set_level(av.logging.INFO)  # what nobody captures goes to Python's ``libav`` logger ...
logging.getLogger("libav").addHandler(logging.NullHandler())  # ... and not from there to the terminal
av.logging.set_skip_repeated(False)  # a message that repeats is another damaged frame


class ErrorLog:
    """Collects FFmpeg's errors while it is entered; :meth:`damage` says whether any came since it last asked.

    ``threads`` tells whether the decoder runs in threads of its own, whose messages reach only a capture of all.
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
        """The last message, for an error's reason; empty when there is none."""
        return self._logs[-1][2].strip() if self._logs else ""


def is_disposable(packet: Packet, codec: VideoCodecContext) -> bool:
    """Whether no other frame depends on this one, so that damage to it does not spread.

    Few H.264 containers say so; the stream does.
    """
    if packet.is_disposable or codec.name != "h264":
        return packet.is_disposable
    return not is_reference(memoryview(packet), codec.extradata)
