"""A stopwatch for training time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from its construction; ``before`` is the time already spent, seconds."""

    def __init__(self, before: float = 0.0) -> None:
        self._began = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """Elapsed time, seconds."""
        return time.perf_counter() - self._began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside the context is not counted."""
        stopped_at = self.seconds
        try:
            yield
        finally:
            self._began = time.perf_counter() - stopped_at
