"""The same work on many files, in processes that may die of one."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from filmstrip.progress import tracked

Item = TypeVar("Item")
Result = TypeVar("Result")

CRASHED = "the process that decoded it died: the file crashes the decoder, or memory ran out"


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    title: str,
    crashed: Callable[[Item, str], Result],
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for every item as they finish, in any order, with a progress bar.

    With one worker the work is done in this process. With more, an item that kills its process gives
    ``crashed(item, reason)``, and the others go on.
    """
    results = map(function, items) if workers <= 1 else _in_processes(function, items, workers, crashed)
    yield from tracked(results, title, total=len(items))


def _in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, crashed: Callable[[Item, str], Result]
) -> Iterator[Result]:
    """A process that dies takes its pool along; what was in flight then is tried again, each item alone."""
    waiting = deque(items)
    while waiting:
        suspects: list[Item] = []
        with _ended(_pool(workers)) as pool:
            running: dict[Future[Result], Item] = {}
            while (waiting and not suspects) or running:
                while waiting and not suspects and len(running) < 2 * workers:
                    item = waiting.popleft()
                    try:
                        running[pool.submit(function, item)] = item
                    except BrokenProcessPool:
                        suspects.append(item)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    item = running.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        suspects.append(item)
                    else:
                        yield future.result()
        yield from _one_by_one(function, suspects, crashed)


def _one_by_one(
    function: Callable[[Item], Result], items: Sequence[Item], crashed: Callable[[Item, str], Result]
) -> Iterator[Result]:
    """In one process at a time, so that the item that kills it is known."""
    waiting = deque(items)
    while waiting:
        with _ended(_pool(1)) as pool:
            while waiting:
                item = waiting.popleft()
                future = pool.submit(function, item)
                if isinstance(future.exception(), BrokenProcessPool):
                    yield crashed(item, CRASHED)
                    break
                yield future.result()


@contextlib.contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Whatever ends the body, items that were not begun are not begun any more."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that are forked from a clean one, which imports the slow libraries once; spawned on Windows."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["torch", "filmstrip.video.decode", "filmstrip.video.pyav"])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    """One thread for each process; Ctrl-C is for the main one, which waits for what is under way.

    SIGTERM is not: a pool that broke ends its processes by it, and would wait for ever.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
