"""``filmstrip list``."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from filmstrip import systems
from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class List(Command):
    """List the systems with their presets."""

    usage = ""

    def __call__(self) -> None:
        Console().print(table())


def table() -> Table:
    """Every system with its presets."""
    rows = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("system", "what it is", "presets"):
        rows.add_column(column, header_style="bold", no_wrap=column == "system")
    for name in systems.names():
        rows.add_row(name, systems.summary(name), ", ".join(systems.presets(name)))
    return rows
