"""Interruption of commands: signals become exceptions, and a note says what was kept."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from filmstrip.errors import Terminated, UserError

NOTHING_KEPT = "nothing was written"
_NAMES = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP are raised as :class:`~filmstrip.errors.Terminated`, as Ctrl-C is by Python.

    Only the first one: schedulers send several, and later ones must not disturb the clean-up. Signals that are
    ignored (``nohup``) stay ignored.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopped_once() -> Iterator[None]:
    """For a worker process: the first signal ends the body, later ones are ignored meanwhile."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _nothing)
        raise Terminated(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def keeping(
    said: Callable[[], str], *, at: tuple[type[BaseException], ...] = (KeyboardInterrupt, OSError)
) -> Iterator[None]:
    """Add a note that says what was kept to an exception that stops the body (a signal, a full disk)."""
    try:
        yield
    except at as stop:
        with contextlib.suppress(OSError, UserError):
            stop.add_note(said())
        raise


def is_unread(stream: TextIO) -> bool:
    """Whether the reader of a stream has gone; if so, its buffer is discarded, as Python would write it at exit."""
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, _nothing)
    raise Terminated(number)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handler that does nothing; SIG_IGN would be an error for a signal that is pending already."""
