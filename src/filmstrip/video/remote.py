"""Files at addresses (``https://``, ``s3://``, ``gs://``, ...) through fsspec: read by ranges, which are kept on
disk.

A range that was read once comes from the disk afterwards, also in other processes. Ranges are kept in
``$FILMSTRIP_CACHE/remote``, by default up to 20 GB (``$FILMSTRIP_CACHE_GB``); those that were not read for longest
make room.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock

from filmstrip.errors import UserError
from filmstrip.files import cache_folder, replacing
from filmstrip.video.decoder import DecodeError

BLOCK = 2**20
"""Number of bytes that are read and kept at once."""
LIVE = frozenset(("rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"))
"""Kinds of addresses of sources that never end."""
_MOST_AHEAD = 8
"""Maximum number of blocks that one request reads, where a file is read from one to the next."""
_IN_MEMORY = 8
"""Number of blocks of an open file that are held in memory."""
_DEFAULT_GB = 20.0
_ATTEMPTS = 3
_PAUSE = 0.5
"""Time before a request is repeated, in seconds; it doubles."""
_SHARE_KEPT = 0.9
"""Share of the maximum size to which the ranges on disk are reduced when they exceed it."""
_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+(.+)$", re.DOTALL)

T = TypeVar("T")


def address_of(path: object) -> str | None:
    """The address that a path stands for, such as ``https://host/clip.mp4``; None for paths on disk.

    A ``Path`` has lost one of the two strokes of an address, which comes back here.
    """
    if not isinstance(path, (str, Path)):
        return None
    found = _ADDRESS.match(str(path))
    return None if found is None else f"{found[1].lower()}://{found[2]}"


def is_live(address: str) -> bool:
    """Whether what is at an address never ends, such as the pictures of a camera."""
    return urlsplit(address).scheme in LIVE


def name_of(address: str) -> str:
    """The host and the path of an address, without what follows a question mark, which may be secret."""
    parts = urlsplit(address)
    return f"{parts.netloc}{parts.path}"


@dataclass(frozen=True)
class _Remote:
    """A file of a file system, as it is now."""

    address: str
    system: Any
    """File system of fsspec."""
    path: str
    size: int
    folder: Path
    """Folder of its ranges on disk."""


def stamp_of(address: str) -> tuple[int, int]:
    """The number of bytes of a file, and a number that differs when its version does.

    Raises:
        DecodeError: it cannot be read.
    """
    remote = _open(address)
    return remote.size, int(remote.folder.name[:15], 16)


def fetch(address: str) -> bytes:
    """The content of a small file, such as a manifest.

    Raises:
        DecodeError: it cannot be read.
    """
    with RemoteFile(address) as file:
        return file.read()


class RemoteFile(io.RawIOBase):
    """A file at an address, open for reading.

    Raises:
        DecodeError: it cannot be read; also while it is read.
        UserError: fsspec, or what it needs for such addresses, is not installed.
    """

    def __init__(self, address: str) -> None:
        self.name = address
        self._remote = _open(address)
        self._position = 0
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._last, self._ahead = -2, 1

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; see :meth:`io.IOBase.seek`."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._remote.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, from one block at most; returns the number of bytes, zero at the end."""
        view = memoryview(buffer).cast("B")
        if self._position >= self._remote.size or not len(view):
            return 0
        number, offset = divmod(self._position, BLOCK)
        content = self._block(number)[offset : offset + len(view)]
        if not content:
            raise self._error("it became shorter while it was read")
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; by default all that are left."""
        left = self._remote.size - self._position
        wanted = max(0, left if size is None or size < 0 else min(size, left))
        content = bytearray(wanted)
        view, done = memoryview(content), 0
        while done < wanted:
            done += self.readinto(view[done:])
        return bytes(content)

    def _block(self, number: int) -> bytes:
        follows, self._last = number == self._last + 1, number
        if number in self._held:
            self._held.move_to_end(number)
        elif (content := _kept(self._remote, number)) is not None:
            self._hold(number, content)
        else:
            self._ahead = min(2 * self._ahead, _MOST_AHEAD) if follows else 1
            for place, own in self._fetched(number):
                self._hold(place, own)
        return self._held[number]

    def _hold(self, number: int, content: bytes) -> None:
        self._held[number] = content
        while len(self._held) > _IN_MEMORY:
            self._held.popitem(last=False)

    def _fetched(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Blocks from ``number`` on, in one request, up to the first that is on disk; ``number`` comes last."""
        remote = self._remote
        last = number + 1
        while last < min(number + self._ahead, math.ceil(remote.size / BLOCK)) and _kept(remote, last) is None:
            last += 1
        start, end = number * BLOCK, min(last * BLOCK, remote.size)
        content = _trying(remote.address, lambda: remote.system.cat_file(remote.path, start=start, end=end))
        if len(content) > end - start:  # the server knows no ranges, and sent all of it
            _keep_all(remote, content)
            content = content[start:end]
        if len(content) < end - start:
            raise self._error(f"{len(content)} bytes came of the {end - start} from byte {start} on")
        for place in reversed(range(number, last)):
            own = content[(place - number) * BLOCK : (place - number + 1) * BLOCK]
            _keep(remote, place, own)
            yield place, own

    def _error(self, reason: str) -> DecodeError:
        return DecodeError(self.name, 0, reason)


def _open(address: str) -> _Remote:
    """A file and its version, about which each process asks once: connections do not outlive a fork."""
    return _ask(address, os.getpid())


@lru_cache(maxsize=4096)
def _ask(address: str, process: int) -> _Remote:
    try:
        import fsspec
    except ImportError:
        raise _needs(address, "fsspec") from None
    if "::" in address:
        raise UserError(f"{address} chains file systems: give the address of one file")
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise _needs(address, str(error)) from None
    except ValueError as error:
        raise DecodeError(address, 0, f"there is no such kind of address: {error}") from None
    told = _trying(address, lambda: system.info(path))
    if told.get("type") == "directory":
        raise DecodeError(address, 0, "this is a folder: list its files in a manifest")
    whole = None
    if (size := told.get("size")) is None:
        whole = _trying(address, lambda: system.cat_file(path))
        size = len(whole)
    if not size:
        raise DecodeError(address, 0, "the file is empty (0 bytes)")
    version = [str(told.get(key)) for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")]
    digest = hashlib.sha256("\n".join((address, str(size), *version)).encode()).hexdigest()[:32]
    remote = _Remote(address, system, path, int(size), cache_folder() / "remote" / digest)
    if whole is not None:
        _keep_all(remote, whole)
    return remote


def _needs(address: str, reason: str) -> UserError:
    return UserError(
        f"{address} cannot be read without another package ({reason}): pip install 'filmstrip[remote]' for http and "
        "https, s3fs for s3, gcsfs for gs"
    )


def _trying(address: str, request: Callable[[], T]) -> T:
    """The answer to a request, which is repeated if it fails for another reason than that there is no such file.

    Raises:
        DecodeError: it failed for good.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return request()
        except ImportError as error:
            raise _needs(address, str(error)) from None
        except FileNotFoundError as error:
            if (reason := _reason(error)) is None or attempt == _ATTEMPTS - 1:
                raise DecodeError(address, 0, reason or "there is no such file") from None
        except PermissionError as error:
            raise DecodeError(address, 0, f"access is denied: {error}") from None
        except Exception as error:  # whatever the libraries of the many kinds of stores raise
            if attempt == _ATTEMPTS - 1:
                raise DecodeError(address, 0, f"it cannot be read: {str(error) or type(error).__name__}") from None
        time.sleep(_PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _reason(error: FileNotFoundError) -> str | None:
    """Why there is no file, where it is for another reason than that the server has none."""
    cause = error.__cause__
    if cause is None or getattr(cause, "status", None) in (404, 410):
        return None
    return f"it cannot be read: {cause}"


def _kept(remote: _Remote, number: int) -> bytes | None:
    """A block on disk; None if it is not there or not whole."""
    path = remote.folder / str(number)
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    return content if len(content) == min(BLOCK, remote.size - number * BLOCK) else None


_written = 0
"""Number of bytes that this process wrote since it last measured the size of all ranges."""


def _keep(remote: _Remote, number: int, content: bytes) -> None:
    """Put a block on disk. A disk that is full or read-only is no reason not to go on."""
    global _written
    limit = _limit()
    if limit < BLOCK:
        return
    with contextlib.suppress(OSError), replacing(remote.folder / str(number), durable=False) as part:
        part.write_bytes(content)
    _written += len(content)
    if _written > limit / 20:
        _written = 0
        with contextlib.suppress(OSError):
            _make_room(remote.folder.parent, limit)


def _keep_all(remote: _Remote, content: bytes) -> None:
    for number in range(math.ceil(remote.size / BLOCK)):
        _keep(remote, number, content[number * BLOCK : (number + 1) * BLOCK])


def _limit() -> float:
    """The maximum size of the ranges on disk, in bytes.

    Raises:
        UserError: ``$FILMSTRIP_CACHE_GB`` is no number.
    """
    told = os.environ.get("FILMSTRIP_CACHE_GB", "")
    try:
        return (float(told) if told else _DEFAULT_GB) * 1e9
    except ValueError:
        raise UserError(
            f"FILMSTRIP_CACHE_GB is {told!r}: expected gigabytes, such as 5, or 0 to keep nothing"
        ) from None


def _make_room(folder: Path, limit: float) -> None:
    """Remove the ranges that were not read for longest, if all together exceed the limit."""
    with FileLock(folder / ".lock"):
        found = []
        for path in folder.glob("*/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= limit:
            return
        for _, size, path in sorted(found):
            path.unlink(missing_ok=True)
            total -= size
            if total <= _SHARE_KEPT * limit:
                break
        for own in folder.iterdir():
            if own.is_dir() and not any(own.iterdir()):
                shutil.rmtree(own, ignore_errors=True)
