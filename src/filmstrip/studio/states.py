"""What a run's folder says of it at a glance: its method and data, how far it is, and whether it still trains."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filmstrip.errors import UserError
from filmstrip.report.curves import Series
from filmstrip.report.run import data_of, evaluated, method_of
from filmstrip.runs.contents import CONFIG, DATA, METRICS, PREDICTIONS, WEIGHTS, environment_of, history
from filmstrip.runs.run_folder import RunFolder

State = Literal["training", "ended", "stopped", "failed"]

MEANING: dict[State, str] = {
    "training": "a training is at work in this folder",
    "ended": "all steps are done",
    "stopped": "weights are saved, but not all steps are done: the same command goes on",
    "failed": "training ended before any weights were saved",
}


@dataclass(frozen=True)
class Glance:
    """One run at a glance."""

    name: str
    state: State
    method: str
    data: str
    step: int
    total: int | None
    """Number of steps of the whole run, if its configuration says; of a length in epochs, rounded."""
    loss: Series
    result: tuple[str, str] | None
    """Name and value of the first evaluation, the latest one."""
    problem: str | None = None
    """Sentence on why the folder cannot be read."""


def glance(folder: Path, name: str) -> Glance:
    """A run at a glance; damaged parts of its folder are left out."""
    return _glance(folder, name, version(folder))


@functools.lru_cache(maxsize=2048)
def _glance(folder: Path, name: str, version: str) -> Glance:
    problem, method, data, total = None, "unknown", "unknown", None
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        method, data, total = method_of(config), data_of(config["data"]), _total(config, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{CONFIG} cannot be read ({error})"
    recorded = history(folder)
    step = max((steps[-1] for steps, _ in recorded.values()), default=0)
    loss = recorded.get("loss", ([], []))
    return Glance(
        name,
        _state(folder, step, total),
        method,
        data,
        step,
        total,
        loss,
        next(iter(evaluated(folder)), None),
        problem,
    )


def version(folder: Path) -> str:
    """A text that changes whenever what :func:`glance` and the curves show does."""
    parts = []
    for name in (METRICS, CONFIG, WEIGHTS, PREDICTIONS):
        try:
            stat = (folder / name).stat()
            parts.append(f"{stat.st_mtime_ns:x}.{stat.st_size:x}")
        except OSError:
            parts.append("-")
    return "_".join([*parts, str(RunFolder.is_training(folder))])


def _state(folder: Path, step: int, total: int | None) -> State:
    if RunFolder.is_training(folder):
        return "training"
    if not RunFolder.is_saved(folder):
        return "failed"
    return "stopped" if total is not None and step < total else "ended"


def _total(config: dict[str, Any], folder: Path) -> int | None:
    """The number of steps that a configuration asks for.

    An epoch is computed from the number of training samples; as the loader may leave out an incomplete last batch, it
    is rounded down.
    """
    length = config["train"]["length"]
    if "steps" in length:
        return int(length["steps"])
    try:
        told = json.loads((folder / DATA).read_bytes())
        batch = config["data"]["batch_size"] * config["train"].get("accumulate", 1)
        processes = environment_of(folder).get("processes", 1)
        return math.floor(length["epochs"] * (told["num_train"] // (batch * processes)))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
