"""The report of one run: what was run, training curves, evaluations, and a classifier's predictions."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.data.config import Data
from filmstrip.data.kinds.kind import Kind
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.protocols import EVALUATION
from filmstrip.report.clips import KeptStrips
from filmstrip.report.comparison import chance, class_table, extremes_of, wilson_interval
from filmstrip.report.confusion import ConfusionMatrix
from filmstrip.report.curves import Curves, Series
from filmstrip.report.generation import frame_curves, is_curve_point
from filmstrip.report.needles import is_needle, needle_grid
from filmstrip.report.page import Group, Report, Section
from filmstrip.report.sections import Column, Facts, Table, Text
from filmstrip.runs.config import from_json
from filmstrip.runs.contents import (
    CONFIG,
    DATA,
    EVALUATIONS,
    METRICS,
    PREDICTIONS,
    PROBES,
    PROTOCOL,
    REPORT,
    commands_of,
    environment_of,
    flat,
    history,
    metrics_of,
    training_seconds,
    unreadable_files,
)
from filmstrip.runs.loading import load_classes, load_data_info
from filmstrip.runs.pictures import kept_pictures
from filmstrip.runs.predictions import Predictions, kept_predictions

log = logging.getLogger(__name__)

MAX_BAD_FILES = 50
SMOOTHING = 0.6
"""Weight of the past in smoothed curves."""
_MIN_SMOOTHED = 10
_EXACT = ("lr", "memory_gib")  # do not vary by chance
_NAMES = {
    "loss": "Loss",
    "top1": "Accuracy on training clips (share)",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient",
    "clips_per_second": "Speed (clips per second)",
    "memory_gib": "Peak memory (GiB)",
    "mae": "Mean absolute error on training clips",
    "hit1": "Most probable class is one of the clip's (share of training clips)",
    "eval/mAP": "Mean average precision (mAP)",
    "eval/hit1": "Most probable class is one of the video's",
    "eval/mae": "Mean absolute error",
    "eval/spearman": "Spearman's rank correlation",
    "eval/pearson": "Pearson's correlation",
    "eval/top1": "Top-1 accuracy",
    "eval/top5": "Top-5 accuracy",
    "eval/mean_class_accuracy": "Accuracy, mean of the classes",
    "eval/count": "Videos evaluated",
    "eval/unreadable": "Unreadable videos",
}
"""Names of metrics on the page; others keep their own."""
_SHARES = ("eval/mAP", "eval/hit1", "eval/top1", "eval/top5", "eval/mean_class_accuracy")
_COUNTS = ("eval/count", "eval/unreadable")


def run_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from the contents of the folder, and the videos of its predictions.

    Raises:
        UserError: this is not a run folder, or nothing is recorded in it yet.
    """
    facts, training = progress_of(folder)
    what_was_run, *rest = details_of(folder)
    sections = [facts, what_was_run, training, *rest]
    return Report(folder.resolve().name, summary_of(folder), sections).write(folder / REPORT)


def summary_of(folder: Path) -> str:
    """What was trained on what, and what it can do, in two sentences.

    Raises:
        UserError: see :func:`run_report`.
    """
    return _lead(_config(folder), _recorded(folder), _predictions(folder))


def progress_of(folder: Path) -> tuple[Facts, Group]:
    """What changes while a run trains: its key figures, and the curves of training.

    Raises:
        UserError: see :func:`run_report`.
    """
    whole = _single_figures(_recorded(folder))
    read = "clips" if _sees(_config(folder)["data"]) else "rows"
    return _facts(whole, training_seconds(folder), _predictions(folder), read), _training(whole)


def details_of(folder: Path) -> list[Section]:
    """The other parts of a run's report, beginning with what was run; videos of predictions are read.

    Raises:
        UserError: see :func:`run_report`.
    """
    recorded, config, predictions = _recorded(folder), _config(folder), _predictions(folder)
    whole = _single_figures(recorded)
    sections: list[Section] = [_what_was_run(folder, config)]
    if evaluations := {name: series for name, series in whole.items() if name.startswith(EVALUATION)}:
        sections += _evaluations(evaluations, folder)
    if curves := frame_curves({folder.resolve().name: recorded}):
        sections.append(curves)
    if grid := needle_grid(recorded):
        sections.append(grid)
    sections += _made(folder)
    sections += _probed(folder)
    sections += _elsewhere(folder)
    if predictions is not None:
        matrix = ConfusionMatrix("Confusion matrix", predictions.confusion(), predictions.classes)
        sections += [matrix, class_table(predictions), _clips(predictions, config)]
    if bad := _unreadable(folder):
        sections.append(bad)
    options = [(name.removesuffix(".type"), _option(name, value)) for name, value in flat(config)]
    sections.append(Table("Configuration", (Column("option"), Column("value")), options, wraps=True))
    return sections


def _recorded(folder: Path) -> dict[str, Series]:
    recorded: dict[str, Series] = {**history(folder)}
    if not recorded:
        raise UserError(f"{folder} has no {METRICS} with anything in it: was the run started?")
    return recorded


def _single_figures(recorded: Mapping[str, Series]) -> dict[str, Series]:
    """What was recorded without what is one point of a curve or of a grid."""
    return {name: series for name, series in recorded.items() if not is_curve_point(name) and not is_needle(name)}


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CONFIG).read_text())


def evaluated(folder: Path) -> list[tuple[str, str]]:
    """Names and values of a run's latest evaluations, as the page has them; without counts and curves over frames."""
    return [
        (_name(name), _value(name, values[-1]))
        for name, (_, values) in _single_figures(history(folder)).items()
        if name.startswith(EVALUATION) and name not in _COUNTS
    ]


def duration(seconds: float) -> str:
    """A duration as text: ``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _predictions(folder: Path) -> Predictions | None:
    """The predictions that the run folder keeps, if they can be read."""
    try:
        if not (folder / DATA).exists() or (told := load_data_info(folder)).labels != "class":
            return None
        return kept_predictions(folder, told.classes)
    except UserError as error:
        log.warning("the report leaves predictions out: %s", error)
        return None


def _lead(config: dict[str, Any], recorded: Mapping[str, Series], predictions: Predictions | None) -> str:
    method = method_of(config)
    steps = max(int(steps[-1]) for steps, _ in recorded.values())
    batch = config["data"].get("batch_size")
    said = f"{method}, trained on {data_of(config['data'])} for {steps:,} steps" + (
        f" with batches of {batch}." if batch else "."
    )
    if predictions is None:
        return said
    count, share = len(predictions.names), predictions.accuracy()
    low, high = wilson_interval(share, count)
    return (
        f"{said} It classifies {share:.1%} of {count:,} test videos correctly (95% interval, Wilson's: {low:.0%} to "
        f"{high:.0%}); always predicting the commonest of their classes would give "
        f"{chance(predictions.labels.tolist()):.1%}."
    )


def _facts(recorded: Mapping[str, Series], seconds: float, predictions: Predictions | None, read: str) -> Facts:
    """The key figures: what came out, and what it took; ``read`` is what a batch has several of."""
    last = {name: values[-1] for name, (_, values) in recorded.items()}
    facts = [
        (_name(name), _value(name, value))
        for name, value in last.items()
        if name.startswith(EVALUATION) and name not in _COUNTS
    ][:4]
    if predictions is not None:
        facts.append(("Test videos", f"{len(predictions.names):,}"))
    if "loss" in last:
        facts.append(("Loss of the last steps", f"{last['loss']:.4g}"))
    steps = max(steps[-1] for steps, _ in recorded.values())
    facts += [("Steps", f"{steps:,}"), ("Training time", duration(seconds))]
    if "clips_per_second" in recorded:
        speed = statistics.median(recorded["clips_per_second"][1])
        facts.append(("Speed, median", f"{speed:,.3g} {read}/s"))
    if "memory_gib" in last:
        facts.append(("Peak memory", f"{last['memory_gib']:.2f} GiB"))
    return Facts("At a glance", facts)


def _what_was_run(folder: Path, config: dict[str, Any]) -> Table:
    """The command, the data and the versions."""
    rows = [("command" if i == 0 else "and then", line) for i, line in enumerate(commands_of(folder))]
    data = config["data"]
    rows.append(("data", data_of(data) + (f" ({data['path']})" if data["path"] else "")))
    if (folder / DATA).exists():
        told = json.loads((folder / DATA).read_bytes())
        rows.append((f"training {'videos' if _sees(data) else 'texts'}", f"{told['num_train']:,}"))
        if classes := told.get("classes"):
            rows.append(
                ("classes", f"{len(classes):,}: {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}")
            )
    if (clip := data.get("clip")) and _sees(data):
        every = f", {clip['stride']} video frames apart" if clip["sampling"] == "dense" else f" ({clip['sampling']})"
        rows.append(("clips", f"{clip['num_frames']} frames{every}, of {clip['size']} x {clip['size']} pixels"))
    if config.get("init"):
        rows.append(("started from", config["init"]))
    rows += [(name, str(value)) for name, value in flat(environment_of(folder))]
    return Table("What was run", (Column("what"), Column("value")), rows, wraps=True)


def _sees(data: Mapping[str, Any]) -> bool:
    """Whether samples have videos, and are not text alone."""
    reads = from_json(data.get("reads"))
    return not (isinstance(reads, Kind) and reads.text_alone)


def _training(recorded: Mapping[str, Series]) -> Group:
    """Charts of all values recorded during training, and of evaluations that were repeated."""
    charts, is_smooth = [], False
    for name, series in recorded.items():
        values = series[1]
        if name in ("seconds", *_COUNTS) or (name.startswith(EVALUATION) and len(values) < 2):
            continue
        smooth = SMOOTHING if len(values) > _MIN_SMOOTHED and name not in _EXACT else 0.0
        is_smooth |= smooth > 0
        charts.append(Curves(_name(name), {_name(name): series}, smooth=smooth))
    note = (
        f"Bold lines are smoothed: a moving average in which each point weighs {1 - SMOOTHING:.1f} and the past "
        f"{SMOOTHING:.1f}. Faint lines are the values as they were recorded."
    )
    return Group("Training", charts, note if is_smooth else None)


def _evaluations(evaluations: Mapping[str, Series], folder: Path) -> list[Section]:
    rows = [(_name(name), _value(name, values[-1]), int(steps[-1])) for name, (steps, values) in evaluations.items()]
    notes = dict.fromkeys(_told(row[PROTOCOL]) for row in metrics_of(folder) if PROTOCOL in row)
    columns = (Column("measure"), Column("value"), Column("after step", ","))
    return [Table("Evaluations", columns, rows, [f"By `filmstrip eval`: {said}." for said in notes])]


def _probed(folder: Path) -> list[Section]:
    """What probes of the encoder predict: how well, and the figures of each class."""
    rows, tables = [], []
    for place in sorted((folder / PROBES).glob(f"*/{PREDICTIONS}")):
        try:
            predictions = kept_predictions(place.parent, load_classes(folder))
        except UserError as error:
            log.warning("the report leaves predictions of a probe out: %s", error)
            continue
        if predictions is not None:
            share, count = predictions.accuracy(), len(predictions.names)
            low, high = wilson_interval(share, count)
            rows.append((place.parent.name, share, f"{low:.0%} to {high:.0%}", count))
            tables.append(replace(class_table(predictions), title=f"Classes, by the probe {place.parent.name}"))
    columns = (Column("probe"), Column("top-1", ".1%", "highest"), Column("95% interval"), Column("videos", ","))
    note = "Small classifiers of the frozen features, of the best layer or the one that was chosen."
    return [Table("What probes predict", columns, rows, (note,)), *tables] if rows else []


def _elsewhere(folder: Path) -> list[Section]:
    """The latest results on other data than the run's own."""
    rows = []
    for place in sorted((folder / EVALUATIONS).glob(f"*/{METRICS}")):
        latest = {name: (row, row[name]) for row in metrics_of(place.parent) for name in row}
        for name, (row, value) in latest.items():
            if name.startswith(EVALUATION) and not is_curve_point(name) and not is_needle(name):
                rows.append((place.parent.name, _told(row[PROTOCOL]), _name(name), _value(name, value), row["step"]))
    columns = (Column("data"), Column("protocol"), Column("measure"), Column("value"), Column("after step", ","))
    return [Table("Evaluations on other data", columns, rows)] if rows else []


def _made(folder: Path) -> list[Section]:
    """Samples, reconstructions and masked clips that the run folder keeps."""
    try:
        return [KeptStrips(kind) for kind in kept_pictures(folder)]
    except UserError as error:
        log.warning("the report leaves pictures out: %s", error)
        return []


def _clips(predictions: Predictions, config: dict[str, Any]) -> Section:
    """The worst and the best predictions with their videos, or why these cannot be shown."""
    try:
        data: Data = from_json(config["data"])
        source = open_source(data)
        split = next((s.split for s in source.samples if s.name == predictions.names[0]), data.eval_split)
        return extremes_of(predictions, source, replace(data, eval_split=split, num_workers=0))
    except (UserError, OSError) as error:
        return Text("Worst and best predictions", [f"The videos of the predictions cannot be shown: {error}."])


def _name(name: str) -> str:
    """A metric's name on the page."""
    return _NAMES.get(name, name.removeprefix(EVALUATION))


def _value(name: str, value: float) -> str:
    """A metric's value on the page: shares as percentages."""
    return f"{value:.1%}" if name in _SHARES else f"{value:,.4g}"


def _told(protocol: Mapping[str, Any]) -> str:
    """A protocol and its settings, as text."""
    settings = [f"{name.replace('_', ' ')} {value}" for name, value in flat(protocol) if name != "name"]
    return f"{protocol['name']} ({', '.join(settings)})" if settings else protocol["name"]


def _unreadable(folder: Path) -> Table | None:
    """The files that could not be read, as the run listed them."""
    rows = [(row["name"], row["used"], row["reason"]) for row in unreadable_files(folder)]
    if not rows:
        return None
    shown = f"The first {MAX_BAD_FILES} of {len(rows)}." if len(rows) > MAX_BAD_FILES else f"{len(rows)} in all."
    columns = (Column("file"), Column("used"), Column("reason"))
    return Table("Files that could not be read in full", columns, rows[:MAX_BAD_FILES], (shown,))


def method_of(config: dict[str, Any]) -> str:
    """The name of a run's method, from its configuration."""
    return config["objective"]["type"].rpartition(":")[2].removesuffix("Config")


def data_of(data: dict[str, Any]) -> str:
    """A run's data in words, from their configuration."""
    if data["path"]:
        return Path(data["path"]).name
    if not data["synthetic"] and "dataset" in data["reads"]:
        return f"the annotations of {data['reads']['dataset']}"
    return f"the synthetic set {data['synthetic']['type'].rpartition(':')[2]}" if data["synthetic"] else "nothing"


def _option(name: str, value: Any) -> str:
    """An option's value as text; import paths are shortened to the class."""
    return value.rpartition(":")[2] if name.rpartition(".")[2] == "type" else str(value)
