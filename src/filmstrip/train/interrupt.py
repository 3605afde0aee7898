"""Handling of termination signals: training finishes its step and saves first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

import torch

from filmstrip.distributed import process
from filmstrip.distributed.reduce import sum_over_processes
from filmstrip.errors import Terminated

SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name))
"""A closed terminal, a scheduler's termination, Ctrl-C; of several, the last one counts."""


Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


class Interrupt:
    """Inside the context, such a signal is only recorded, in ``requested``.

    A second Ctrl-C works as usual. A second SIGTERM does not: schedulers send it to every process of a job, and
    ``torchrun`` forwards its own. Signals that are ignored (``nohup``) stay ignored.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        # Only the main thread can install signal handlers.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self, device: torch.device) -> int | None:
        """The signal that any process received, if any; called by all at the same step, so that they stop
        together."""
        if not process.is_several():
            return self.requested
        noted = torch.tensor([int(self.requested == number) for number in SIGNALS], device=device)
        sent = [number for number, count in zip(SIGNALS, sum_over_processes(noted).tolist()) if count]
        return sent[-1] if sent else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def stopped_by(number: int) -> KeyboardInterrupt:
    """The exception for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
