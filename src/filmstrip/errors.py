"""The exceptions whose message is written for the person at the keyboard, and errors of the system in words."""

from __future__ import annotations

import errno
import os
import signal


class UserError(Exception):
    """What was asked cannot be done as asked: says what was given, what was expected, and what to do.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end, as Ctrl-C does: what can be kept is kept.

    The command line exits with code 128 + ``number``, as a shell says it.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG))
"""What only writing can meet: the disk or a quota is full, cannot be written to, or holds no file so large."""

_IN_WORDS = {
    errno.ENOSPC: "there is no space left on its disk: free some, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space, or write elsewhere",
    errno.EROFS: "its disk is read-only: write elsewhere",
    errno.EFBIG: "it became larger than a file may be there: write elsewhere, or raise the limit (ulimit -f)",
    errno.EACCES: "permission denied: write elsewhere, or change who may use it",
    errno.EPERM: "permission denied: write elsewhere, or change who may use it",
    errno.ENOTDIR: "a part of this path is a file and no folder: give another path",
    errno.EEXIST: "something else is there already: give another path",
    errno.EISDIR: "this is a folder and cannot be written as a file: give another path",
    errno.ENOENT: "there is no such file or folder",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
    errno.EIO: "the disk failed to read or write it",
}


def in_words(error: OSError) -> str:
    """An error of the system as one sentence: which file, what was wrong with it, what to do."""
    reason = _IN_WORDS.get(error.errno) or error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
