"""Batched reading: many requests on one video, answered in as few passes over the open file as memory allows.

Requests answered one by one each start decoding at the key frame before them, and decode shared frames repeatedly. In
one pass every frame is decoded at most once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from filmstrip.video.decoder import Decoder, Frames, Request, VideoInfo

AT_ONCE = 128 * 2**20
"""Maximum memory for decoded frames, bytes, unless one list of requests needs more."""


def read_batched(
    decoder: Decoder, asked: Iterable[Sequence[Request]], *, at_once: int = AT_ONCE
) -> Iterator[list[Frames]]:
    """The frames of several lists of requests, list by list; fastest when requests are in ascending time.

    Consecutive lists whose frames take up to ``at_once`` bytes are decoded together, when the first of them is due.

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
    """Memory of the frames of a request, bytes."""
    whole = request.crop[2:] if request.crop else (info.height, info.width)
    return 3 * len(request.times) * math.prod(request.size or whole)
