"""Worker processes that read for a loader, and may die of a file: it then counts as bad, and reading goes on.

FFmpeg parses what strangers wrote, in C: now and then a file crashes the process. Each worker notes in shared memory
which sample it is reading, so that the one that killed it is known. Nothing else is lost: requests that
were not answered yet are repeated in the same order.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from filmstrip.protocols import Batch


class Reads(Protocol):
    """What workers read from: ``dataset[request]`` is a batch, or none, and a report."""

    current: Current | None
    """Record of the samples being read; None without workers."""

    def __getitem__(self, request: Any) -> tuple[Batch | None, Any]: ...

    def crashed(self, index: int) -> None:
        """Never read a sample again: it killed the process that read it."""
        ...


class Current:
    """Which sample each worker is reading, where all processes see it."""

    def __init__(self, num_workers: int):
        self._slots = torch.full((num_workers, 2), -1, dtype=torch.int64).share_memory_()

    @contextlib.contextmanager
    def at(self, index: int) -> Iterator[None]:
        """While this worker reads a sample."""
        worker = get_worker_info()
        assert worker is not None, "only workers note what they read"
        slot = self._slots[worker.id]
        slot.copy_(torch.tensor([os.getpid(), index]))
        try:
            yield
        finally:
            slot.fill_(-1)

    def of(self, pids: Iterable[int | None]) -> list[int]:
        """The samples that these processes were reading."""
        reading = dict(self._slots.tolist())
        return [reading[pid] for pid in pids if pid in reading]


def load(dataset: Reads, requests: Iterable[Any], num_workers: int) -> Iterator[tuple[Batch | None, Any]]:
    """What ``dataset`` has for each request, in order; workers keep a few requests ahead.

    Without workers, a file that crashes the decoder ends the process.

    Raises:
        RuntimeError: a worker died while it read nothing.
    """
    waiting: deque[Any] = deque()  # asked for and not delivered yet
    fresh = iter(requests)

    def due() -> Iterator[Any]:
        yield from tuple(waiting)
        for request in fresh:
            waiting.append(request)
            yield request

    while True:
        dataset.current = Current(num_workers) if num_workers else None
        answers, workers = _start(dataset, due(), num_workers)
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # a dead worker takes along what it has handed over
                dead = _dead(workers)
                killers = dataset.current.of(dead) if dataset.current else []
                if not dead:
                    raise
                if not killers:
                    raise RuntimeError(f"a loader's worker (pid {dead[0]}) died while it read no file") from error
                del answers  # ends the other workers
                break
            waiting.popleft()
            yield answer
        for index in killers:
            dataset.crashed(index)


def _start(dataset: Reads, requests: Iterator[Any], num_workers: int) -> tuple[Iterator[Any], list[BaseProcess]]:
    """The answers to come, and the processes that work on them."""
    settings: dict[str, Any] = {}
    if num_workers:
        # Forking costs milliseconds where a fresh interpreter costs seconds, and is sound here: a worker uses no
        # GPU, opens its own files, and computes on a single thread.
        method = "fork" if sys.platform == "linux" else "spawn"
        settings = {"worker_init_fn": _quiet, "multiprocessing_context": method}
    # All that is asked of a data set is how it reads, also where torch asks for its class.
    loader: DataLoader[Any] = DataLoader(
        cast(Dataset[Any], dataset),
        batch_size=None,
        sampler=requests,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # otherwise starting a loader draws from the global generator
        **settings,
    )
    before = multiprocessing.active_children()
    with _child_signals_kept():
        answers = iter(loader)
    return answers, [child for child in multiprocessing.active_children() if child not in before]


def _dead(workers: list[BaseProcess]) -> list[int | None]:
    """Which workers have ended; one that just broke a connection may take a moment."""
    ended = multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=1)
    dead = [worker for worker in workers if worker.sentinel in ended]
    for worker in dead:
        worker.join()
    return [worker.pid for worker in dead]


@contextlib.contextmanager
def _child_signals_kept() -> Iterator[None]:
    """Undo what a DataLoader does to SIGCHLD: its handler raises, wherever training is, as soon as a worker dies.

    Without it, the death is noticed when its batch is due.
    """
    mine = sys.platform != "win32" and threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if mine else None
    yield
    if mine:
        signal.signal(signal.SIGCHLD, handler)


def _quiet(worker: int) -> None:
    """Leave Ctrl-C and what a scheduler sends to all of a job to the main process, which then ends its workers.

    A worker that died of it would make its sample a bad file, and cost the step that is to be saved.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
