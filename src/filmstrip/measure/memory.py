"""Peak memory of a piece of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yields a function that returns the peak memory since entry, bytes: the device's, or this process's resident
    set.

    Where the peak cannot be reset (outside Linux), it is that of the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # resets the high-water mark of the resident set
    yield _resident_peak


def _resident_peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
