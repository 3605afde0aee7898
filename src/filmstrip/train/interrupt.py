"""Signals that ask a training to end: it finishes its step and saves first."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

import torch

from filmstrip.distributed import process
from filmstrip.distributed.reduce import sum_over_processes
from filmstrip.errors import Terminated

SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name))
"""A terminal that goes away, a scheduler that takes the machine back, Ctrl-C; of several the last one counts."""


class Interrupt:
    """Inside, such a signal is only noted, in ``requested``.

    A second Ctrl-C works as usual. A second SIGTERM does not: schedulers send it to every process of a job, and
    ``torchrun`` passes on its own. Signals that are ignored (``nohup``) stay ignored.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only, and lets no other thread ask for them.
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
        """The signal that any process was sent, if any; all ask at the same step, so that they stop together."""
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
    """The exception that says which signal ended something."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
