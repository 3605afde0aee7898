"""Many places of one video, read in turn: the file is open once, and as much as memory allows is decoded in one pass.

Places that are read one by one each begin at the key frame before them, and frames that several of them show are
decoded as often. In one pass everything is decoded once at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from filmstrip.video.decoder import Decoder, Frames, Request, VideoInfo

AT_ONCE = 128 * 2**20
"""Bytes of frames that are held, unless those of one place are more."""


def read_batched(
    decoder: Decoder, asked: Iterable[Sequence[Request]], *, at_once: int = AT_ONCE
) -> Iterator[list[Frames]]:
    """The answers to several lists of requests, list by list; what is asked for in ascending time is read fastest.

    Lists are answered together whose frames take up to ``at_once`` bytes, and are read when the first of them is due.

    Raises:
        DecodeError: (while iterating) no frame could be decoded.
    """
    waiting: list[Sequence[Request]] = []
    held = 0
    for requests in asked:
        size = sum(_bytes(request, decoder.info) for request in requests)
        if held and size and held + size > at_once:
            yield from _answers(decoder, waiting)
            waiting, held = [], 0
        waiting.append(requests)
        held += size
    yield from _answers(decoder, waiting)


def _answers(decoder: Decoder, asked: Sequence[Sequence[Request]]) -> Iterator[list[Frames]]:
    found = iter(decoder.read([request for requests in asked for request in requests]) if asked else ())
    for requests in asked:
        yield list(islice(found, len(requests)))


def _bytes(request: Request, info: VideoInfo) -> int:
    """What an answer takes."""
    whole = request.crop[2:] if request.crop else (info.height, info.width)
    return 3 * len(request.times) * math.prod(request.size or whole)
