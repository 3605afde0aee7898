"""Progress display of training: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console

from filmstrip.distributed import process
from filmstrip.progress import bars, shown

LINE_EVERY = 10.0
"""Seconds between plain lines; the first and the last step always print one."""


class ProgressBar:
    """Steps done of ``total``, loss, clips/s and time left. Only the first process displays it."""

    def __init__(self, start: int, total: int, console: Console | None = None) -> None:
        self._start, self._total = start, total
        self._console = console or Console(quiet=process.rank() != 0)
        self._bar = bars(self._console, transient=False)
        self._showing = shown(self._bar)
        self._task = self._bar.add_task("training", total=total, completed=start, said="")
        self._said_at = -math.inf

    def __enter__(self) -> Self:
        self._showing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._showing.__exit__(kind, error, trace)

    def advance(self, step: int) -> None:
        """Move the bar to ``step`` steps done."""
        self._bar.update(self._task, completed=step)

    def report(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Show the latest values; ``seconds`` is the time spent on the steps since ``start``."""
        left = seconds / max(step - self._start, 1) * (self._total - step)
        said = f"loss {values['loss']:.4g}  {values['clips_per_second']:.4g} clips/s  {_clock(left)} left"
        self._bar.update(self._task, said=said)
        due = time.monotonic() - self._said_at >= LINE_EVERY or step == self._total
        if due and not self._console.is_terminal:
            self._said_at = time.monotonic()
            self.say(f"step {step}/{self._total}  {said}")

    def say(self, text: str) -> None:
        """Print a line, above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
