"""How far something has come, for a person at a terminal: one bar of one kind, wherever work takes its time.

Bars are shown on the terminal that errors go to, so that what a command prints can be piped; where that is no
terminal, nothing is shown. Work within work adds its bar to the one that is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from filmstrip.distributed import process

Item = TypeVar("Item")

_shown: list[Progress] = []
"""The bars on the screen, if any: there is one place for them."""


class _Said(TimeRemainingColumn):
    """What the work says of itself; else the time that is left."""

    def render(self, task: Task) -> Text:
        said = task.fields.get("said")
        return super().render(task) if said is None else Text(said)


def bars(console: Console, *, transient: bool = True) -> Progress:
    """The bars of all work that goes on; nothing where the console is no terminal."""
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
        # What is printed meanwhile goes above the bar on a terminal, and is left alone where it is piped.
        redirect_stdout=sys.stdout.isatty(),
    )


@contextmanager
def shown(progress: Progress) -> Iterator[Progress]:
    """These bars are on the screen while the body runs, and what it counts is added to them."""
    with progress:
        _shown.append(progress)
        try:
            yield progress
        finally:
            _shown.remove(progress)


@contextmanager
def counted(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar while the body runs, which calls what it is given with the number of items that are done.

    Args:
        title: what is done.
        total: items in all; none where that is not known.
    """
    if _shown:
        task = _shown[-1].add_task(title, total=total)
        try:
            yield _setter(_shown[-1], task)
        finally:
            _shown[-1].remove_task(task)
        return
    with shown(bars(Console(stderr=True, quiet=process.rank() != 0))) as progress:
        yield _setter(progress, progress.add_task(title, total=total))


def tracked(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """The same items, with a bar that counts those that are done.

    Args:
        items: work to do, or what it gives.
        title: what is done.
        total: items in all; by default as many as ``items`` say they have.
    """
    if total is None and hasattr(items, "__len__"):
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
