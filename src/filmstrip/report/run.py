"""The report of one run: configuration, training curves and evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filmstrip.errors import UserError
from filmstrip.report.curves import Curves, Series
from filmstrip.report.generation import frame_curves, is_curve_point
from filmstrip.report.page import Group, Report, Section
from filmstrip.report.sections import Column, Facts, Table
from filmstrip.runs.contents import (
    CONFIG,
    METRICS,
    REPORT,
    environment_of,
    flat,
    history,
    training_seconds,
    unreadable_files,
)

MAX_BAD_FILES = 50
EVALUATION = "eval/"
"""Prefix of the names of evaluations in ``metrics.jsonl``."""


def run_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from the contents of the folder alone.

    Raises:
        UserError: this is not a run folder, or nothing is recorded in it yet.
    """
    recorded = history(folder)
    if not recorded:
        raise UserError(f"{folder} has no {METRICS} with anything in it: was the run started?")
    config = json.loads((folder / CONFIG).read_text())
    whole = {name: series for name, series in recorded.items() if not is_curve_point(name)}
    sections: list[Section] = [_facts(whole, training_seconds(folder)), _training(whole)]
    if evaluations := {name: series for name, series in whole.items() if name.startswith(EVALUATION)}:
        sections.append(_evaluations(evaluations))
    if curves := frame_curves({folder.resolve().name: recorded}):
        sections.append(curves)
    if bad := _unreadable(folder):
        sections.append(bad)
    options = [(name.removesuffix(".type"), _option(name, value)) for name, value in flat(config)]
    sections.append(Table("Configuration", (Column("option"), Column("value")), options))
    if environment := environment_of(folder):
        made_with = [(name, str(value)) for name, value in flat(environment)]
        sections.append(Table("Environment", (Column("what"), Column("value")), made_with))
    method = config["objective"]["type"].rpartition(":")[2].removesuffix("Config")
    lead = f"A {method}, trained on {_data(config['data'])}. Everything below is read from the run's own folder."
    return Report(folder.resolve().name, lead, sections).write(folder / REPORT)


def duration(seconds: float) -> str:
    """A duration as text: ``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _facts(recorded: Mapping[str, Series], seconds: float) -> Facts:
    """The final steps, time, loss and evaluations."""
    last = {name: values[-1] for name, (_, values) in recorded.items()}
    steps = max(steps[-1] for steps, _ in recorded.values())
    facts = [("steps", f"{steps:,}"), ("training time", duration(seconds))]
    if "loss" in last:
        facts.append(("final loss", f"{last['loss']:.4g}"))
    facts += [(name.removeprefix(EVALUATION), f"{v:,.4g}") for name, v in last.items() if name.startswith(EVALUATION)]
    return Facts("At a glance", facts[:8])


def _training(recorded: Mapping[str, Series]) -> Group:
    """Charts of all values recorded during training."""
    charts = [
        Curves(name, {name: series}, smooth=0.6 if len(series[0]) > 10 else 0.0)
        for name, series in recorded.items()
        if name != "seconds" and (len(series[0]) > 1 or not name.startswith(EVALUATION))
    ]
    return Group("Training", charts)


def _evaluations(evaluations: Mapping[str, Series]) -> Table:
    rows = [
        (name.removeprefix(EVALUATION), values[-1], int(steps[-1])) for name, (steps, values) in evaluations.items()
    ]
    return Table("Evaluations", (Column("name"), Column("value", ",.4g"), Column("after step", ",")), rows)


def _unreadable(folder: Path) -> Table | None:
    """The files that could not be read, as the run listed them."""
    rows = [(row["name"], row["used"], row["reason"]) for row in unreadable_files(folder)]
    if not rows:
        return None
    shown = f"The first {MAX_BAD_FILES} of {len(rows)}." if len(rows) > MAX_BAD_FILES else f"{len(rows)} in all."
    columns = (Column("file"), Column("used"), Column("reason"))
    return Table("Files that could not be read in full", columns, rows[:MAX_BAD_FILES], (shown,))


def _data(data: dict[str, Any]) -> str:
    if data["path"]:
        return Path(data["path"]).name
    if not data["synthetic"] and "dataset" in data["reads"]:
        return f"the annotations of {data['reads']['dataset']}"
    return f"the synthetic set {data['synthetic']['type'].rpartition(':')[2]}" if data["synthetic"] else "nothing"


def _option(name: str, value: Any) -> str:
    """An option's value as text; import paths are shortened to the class."""
    return value.rpartition(":")[2] if name.rpartition(".")[2] == "type" else str(value)
