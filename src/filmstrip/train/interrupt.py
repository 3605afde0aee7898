"""Ctrl-C: the first waits for the end of a step, the second does not."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

import torch

from filmstrip.dist import process
from filmstrip.dist.reduce import sum_over_processes


class Interrupt:
    """Inside, the first Ctrl-C is only noted, in ``requested``; from then on Ctrl-C works as usual."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only, and lets no other thread ask for them.
        self._ours = threading.current_thread() is threading.main_thread()
        if self._ours:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def agreed(self, device: torch.device) -> bool:
        """Whether any process was interrupted; they all ask at the same step, so that they stop together."""
        if not process.is_several():
            return self.requested
        return bool(sum_over_processes(torch.tensor(int(self.requested), device=device)).item())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
