"""The index of systems, as `filmstrip list` prints it, and one preset in full, as `filmstrip show` does."""

from __future__ import annotations

import inspect
import json

from rich.console import Console
from rich.table import Table

from filmstrip import systems
from filmstrip.measure import complexity, receptive_field
from filmstrip.runs import loading
from filmstrip.runs.config import Run, to_json


def summary(name: str) -> str:
    """What a system is: the first sentence of its file."""
    text = " ".join((inspect.getdoc(systems.module(name)) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def table() -> Table:
    """Every system with its presets."""
    rows = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("system", "what it is", "presets"):
        rows.add_column(column, header_style="bold", no_wrap=column == "system")
    for name in systems.names():
        rows.add_row(name, summary(name), ", ".join(systems.presets(name)))
    return rows


def show(run: Run, console: Console) -> None:
    """Print a run's configuration, what each layer of a plain chain sees, and what it costs; builds no weights.

    Raises:
        UserError: its tokenizer's run is no run folder, or its network does not fit its clips.
    """
    run = loading.with_tokenizer(run)
    complexity.try_out(run)
    console.print_json(json.dumps(to_json(run)))
    if receptive_field.is_chain(layers := receptive_field.of_run(run)):
        console.print(receptive_field.table(layers, run.data.clip), "")
    console.print(complexity.of_run(run).table())
