"""Time spent on training alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from the moment it is made; ``before`` are seconds already spent."""

    def __init__(self, before: float = 0.0) -> None:
        self._began = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count."""
        stopped_at = self.seconds
        try:
            yield
        finally:
            self._began = time.perf_counter() - stopped_at
