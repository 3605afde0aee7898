"""Progress bars for all long operations.

Bars are shown on stderr, so that a command's output can be piped; if that is not a terminal, nothing is shown. Nested
operations add their bars to the same display.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, redirect_stdout
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

Item = TypeVar("Item")

_shown: list[Progress] = []
"""The displayed bars, if any; there is one display per process."""


class _Said(TimeRemainingColumn):
    """The status text of a task, else its remaining time."""

    def render(self, task: Task) -> Text:
        said = task.fields.get("said")
        return super().render(task) if said is None else Text(said)


@contextmanager
def said_by_one() -> Iterator[None]:
    """Inside, only the first of several processes prints."""
    from filmstrip.distributed import process  # as below

    if process.rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def bars(console: Console, *, transient: bool = True) -> Progress:
    """The bars of all running tasks; not displayed if the console is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Said(table_column=Column(no_wrap=True)),
    )
    return Progress(
        *columns,
        console=console,
        transient=transient,
        disable=not console.is_terminal,
        # Output printed meanwhile goes above the bar on a terminal, and is unchanged if piped.
        redirect_stdout=sys.stdout.isatty(),
    )


@contextmanager
def shown(progress: Progress) -> Iterator[Progress]:
    """Display these bars while the body runs; nested tasks are added to them."""
    with progress:
        _shown.append(progress)
        try:
            yield progress
        finally:
            _shown.remove(progress)


@contextmanager
def counted(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar while the body runs; yields a function to call with the number of items done.

    Args:
        title: name of the task.
        total: total number of items; none if unknown.
    """
    if _shown:
        task = _shown[-1].add_task(title, total=total)
        try:
            yield _setter(_shown[-1], task)
        finally:
            _shown[-1].remove_task(task)
        return
    from filmstrip.distributed import process  # which most that import this module do without

    with shown(bars(Console(stderr=True, quiet=process.rank() != 0))) as progress:
        yield _setter(progress, progress.add_task(title, total=total))


def tracked(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """The same items, with a bar that counts them.

    Args:
        items: items to iterate over.
        title: name of the task.
        total: total number of items; by default ``len(items)`` if defined.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with counted(title, total) as done:
        for number, item in enumerate(items):
            done(number)
            yield item
        if total is not None:
            done(total)


def _setter(progress: Progress, task: TaskID) -> Callable[[int], None]:
    def done(number: int) -> None:
        progress.update(task, completed=number)

    return done
