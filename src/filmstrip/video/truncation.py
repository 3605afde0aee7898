"""Detection of truncated files from their last bytes, for formats that allow it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from filmstrip.video.decoder import VideoSource

ENDS_EARLY = "the file was cut off: it ends in the middle of its data"

_OGG_PAGE = b"OggS"
_OGG_HEADER = 27
_OGG_LAST = 4
"""The flag of a logical stream's last page (RFC 3533, 6)."""

_ZEROS = 256
"""Number of final zero bytes that indicate an unwritten end."""

_TAIL = 2**17
"""Number of final bytes inspected: an Ogg page takes up to 65,307."""


def ends_logical_streams(source: VideoSource) -> bool:
    """Whether an Ogg file ends with a complete page that is the last one of its stream."""
    tail = _tail(source)
    start = tail.rfind(_OGG_PAGE)
    if start < 0 or len(tail) < start + _OGG_HEADER:
        return False
    table = start + _OGG_HEADER
    segments = tail[table : table + tail[start + 26]]
    whole = table + len(segments) + sum(segments) <= len(tail) and len(segments) == tail[start + 26]
    return whole and bool(tail[start + 5] & _OGG_LAST)


def ends_in_zeros(source: VideoSource) -> bool:
    """Whether the last bytes of a file were never written."""
    return not any(_tail(source)[-_ZEROS:])


def _tail(source: VideoSource) -> bytes:
    """The last bytes of a file; the position of an open file is restored."""
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            return _last_bytes(file)
    position = source.tell()
    try:
        return _last_bytes(source)
    finally:
        source.seek(position)


def _last_bytes(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    return file.read()
