"""Exceptions whose messages address the user, and system errors in words."""

from __future__ import annotations

import errno
import os
import signal


class UserError(Exception):
    """A request cannot be fulfilled: states what was provided, what was expected, and what to do.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


class Diverged(UserError):
    """Training led to a value that is not finite: a learning rate is too high, or an input is broken."""


class Terminated(KeyboardInterrupt):
    """A signal requested termination of this process, as Ctrl-C does; partial results are saved.

    The command line exits with code 128 + ``number``, as is usual in shells.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG))
"""Errors specific to writing: the disk or a quota is full, read-only, or does not support files so large."""

_IN_WORDS = {
    errno.ENOSPC: "there is no space left on its disk: free some, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space, or write elsewhere",
    errno.EROFS: "its disk is read-only: write elsewhere",
    errno.EFBIG: "it became larger than a file may be there: write elsewhere, or raise the limit (ulimit -f)",
    errno.EACCES: "permission denied: write elsewhere, or change who may use it",
    errno.EPERM: "permission denied: write elsewhere, or change who may use it",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another path",
    errno.EEXIST: "it exists already: choose another path",
    errno.EISDIR: "this is a folder and cannot be written as a file: choose another path",
    errno.ENOENT: "there is no such file or folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EIO: "the disk failed to read or write it",
}


def in_words(error: OSError) -> str:
    """A system error as one sentence: which file, the reason, and what to do."""
    reason = _IN_WORDS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
