"""The files of a run folder, by name, and reading its records without any network."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filmstrip.errors import UserError

CONFIG = "config.json"
"""The run's configuration."""
DATA = "data.json"
"""What its data told the objective, such as the names of the classes."""
ENVIRONMENT = "environment.json"
"""Versions, git hash, device, number of processes."""
COMMANDS = "commands.txt"
"""The commands that trained the run, a line for each start."""
WEIGHTS = "weights.safetensors"
"""Trained weights and buffers, of the best step where the run looked for it; EMA weights if the run has them."""
LAST = "last.safetensors"
"""Those of the last step, where the run looked for the best one."""
STATE = "state"
"""A folder of states, from which training resumes."""
FROZEN = "frozen.json"
"""Where frozen parts are that the weights and states leave out, and their fingerprints."""
COPIES = "frozen"
"""A folder of copies of these, by the setting that named them; only where they were asked for."""
LOCK = ".lock"
"""Held while the run trains."""
METRICS = "metrics.jsonl"
"""Metrics, a JSON object a line."""
PREDICTIONS = "predictions.csv"
"""What a classifier predicted for each file when it was evaluated last."""
CLASSES = "classes.csv"
"""The figures of each class, of these predictions."""
CONFUSION = "confusion.csv"
"""The confusion matrix of these predictions."""
PROBES = "probes"
"""A folder with a folder for each probe of the encoder: the same three tables of its predictions."""
SAMPLES = "samples"
"""A folder of pictures of what the run makes: samples, reconstructions, masked clips that it fills in."""
EVALUATIONS = "evaluations"
"""A folder with a folder for each other collection on which the run was evaluated: metrics, and predictions."""
UNREADABLE = "unreadable.csv"
"""Files that could not be read in full."""
REPORT = "report.html"
"""The report, made from the other files."""
PROTOCOL = "protocol"
"""In a line of metrics that an evaluation wrote: its protocol's name and settings."""


def is_run(source: str | Path) -> bool:
    """Whether this is a run folder; the Hub's layout has a config.json too, without our type tags."""
    path = Path(source) / CONFIG
    if str(source).startswith("hf:") or not path.exists():
        return False
    try:
        return "type" in json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def metrics_of(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; those that a crash truncated or damaged are omitted."""
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "step" in row:
            yield row


def history(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Everything that ``metrics.jsonl`` records, by name: its steps and values.

    A step that was repeated after a resume counts once, with its last values.
    """
    recorded: dict[str, dict[int, float]] = {}
    for row in metrics_of(folder):
        for name, value in flat({key: value for key, value in row.items() if key != PROTOCOL}):
            if isinstance(value, int | float) and name != "step":
                recorded.setdefault(name, {})[row["step"]] = float(value)
    return {name: (sorted(values), [values[s] for s in sorted(values)]) for name, values in recorded.items()}


def evaluations_folder(folder: Path, data: Path) -> Path:
    """The folder in a run folder for results on other data: named like them, and numbered where several are."""
    place = str(data.expanduser().resolve())
    for number in itertools.count(1):
        name = data.expanduser().resolve().stem or "root"
        found = folder / EVALUATIONS / (name if number == 1 else f"{name}-{number}")
        recorded = next(metrics_of(found), None)
        if recorded is None or recorded.get("data") == place:
            return found
    raise AssertionError("there are endlessly many numbers")


def training_seconds(folder: Path) -> float:
    """Training time of a run, seconds, without interruptions and the final evaluation."""
    return max((row["seconds"] for row in metrics_of(folder) if "loss" in row), default=0.0)


def unreadable_files(folder: Path) -> list[dict[str, str]]:
    """The rows of ``unreadable.csv``: ``name``, ``used``, ``reason``."""
    path = folder / UNREADABLE
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def commands_of(folder: Path) -> list[str]:
    """The commands that trained a run, the first one first; none of a run that was trained from Python."""
    path = folder / COMMANDS
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def environment_of(folder: Path) -> dict[str, Any]:
    """What ``environment.json`` says; empty if there is none."""
    path = folder / ENVIRONMENT
    return json.loads(path.read_bytes()) if path.exists() else {}


def flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested JSON as dotted names and plain values; a list is one value."""
    if not isinstance(values, dict):
        yield name, ", ".join(map(str, values)) if isinstance(values, list) else values
        return
    for key, value in values.items():
        yield from flat(value, f"{name}.{key}" if name else key)
