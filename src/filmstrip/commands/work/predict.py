"""Predictions of a trained classifier for files: the most probable classes overall, and along a timeline."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from filmstrip.data.reading.views import read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.progress import tracked
from filmstrip.protocols import Classifier, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.loading import load_classes, load_objective
from filmstrip.video import DecodeError

COLOURS = ("blue", "green", "magenta", "cyan", "yellow", "red")
LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Moment:
    """One clip of the timeline: its start and end in seconds, and its most probable class."""

    start: float
    end: float
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file."""

    path: str
    top: tuple[tuple[str, float], ...]
    """The most probable classes and their probabilities, averaged over all clips and crops."""
    timeline: tuple[Moment, ...]
    damaged: bool = False
    """Whether some decoded frames were damaged, or the file ends early."""


@dataclass(frozen=True)
class Failure:
    """A file that cannot be read."""

    path: str
    reason: str


def predict_files(
    folder: Path, files: Sequence[Path], *, top_k: int = 5, num_clips: int = 4, as_json: bool = False
) -> int:
    """Print the classifier's prediction for each file; returns 1 if some could not be read, else 0.

    A file that cannot be read is reported and does not stop the others.

    Raises:
        UserError: there are no files, one of them is a folder, or the run is not a classifier.
    """
    if not files:
        raise UserError("predict needs videos: filmstrip predict RUN FILE ...")
    if folder_given := next((file for file in files if file.is_dir()), None):
        raise UserError(
            f"{folder_given} is a folder, and predict takes files: provide them, such as {folder_given}/*.mp4"
        )
    objective, run = load_objective(folder)
    _check_classifier(objective)
    classes = load_classes(folder)
    console = Console()
    results: list[Prediction | Failure] = []
    # The output for each file shows the progress.
    for file in tracked(files, "looking") if as_json else files:
        result: Prediction | Failure
        try:
            result = predict_file(objective, run, file, classes=classes, top_k=top_k, num_clips=num_clips)
        except UserError as error:
            result = Failure(str(file), error.reason if isinstance(error, DecodeError) else str(error))
        results.append(result)
        if not as_json:
            console.print(render(result, console.width))
    if as_json:
        json.dump({"run": str(folder), "files": [asdict(r) for r in results]}, sys.stdout, indent=2)
        print()
    return int(any(isinstance(r, Failure) for r in results))


def predict_file(
    objective: Objective,
    run: Run,
    path: Path | str,
    *,
    classes: Sequence[str],
    top_k: int = 5,
    num_clips: int = 4,
    num_crops: int = 3,
) -> Prediction:
    """Classify ``num_clips`` clips along a file, ``num_crops`` crops of each, and average.

    Raises:
        UserError: the objective is not a classifier, or the file cannot be read.
    """
    _check_classifier(objective)
    assert isinstance(objective, Classifier), "checked above"
    views = read_views(path, run.data.clip, num_clips=num_clips, num_crops=num_crops, backend=run.data.backend)
    with inference(objective):
        logits = objective.classify(views.video.to(device_of(objective)))
        probabilities = logits.float().softmax(dim=1).cpu()
    if probabilities.shape[1] != len(classes):
        raise UserError(f"the model has {probabilities.shape[1]} classes, but {len(classes)} names were provided")
    by_clip = probabilities.unflatten(0, (len(views.spans), -1)).mean(dim=1)
    best = by_clip.mean(dim=0).topk(min(top_k, len(classes)))
    timeline = [
        Moment(start, end, classes[int(clip.argmax())], float(clip.max()))
        for (start, end), clip in zip(views.spans, by_clip)
    ]
    return Prediction(
        path=str(path),
        top=tuple((classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist())),
        timeline=tuple(timeline),
        damaged=views.damaged,
    )


def _check_classifier(objective: Objective) -> None:
    if not isinstance(objective, Classifier):
        raise UserError(
            f"{type(objective).__name__} is not a classifier: predict needs a run that was trained with labels "
            "(fine-tune this one with --init RUN)"
        )


def render(result: Prediction | Failure, width: int = 80) -> RenderableType:
    """A prediction as text for a terminal: bars of the most probable classes, then the timeline."""
    if isinstance(result, Failure):
        return Text.assemble((result.path, "bold"), ("  unreadable: ", "red"), result.reason)
    title = Text(result.path, style="bold")
    if result.damaged:
        title.append("  (some frames are damaged)", style="yellow")
    bars = Table(box=None, show_header=False, padding=(0, 1))
    for label, probability in result.top:
        bar = Text("━" * max(1, round(30 * probability)), style="bold green" if label == result.top[0][0] else "dim")
        bars.add_row(Text(label), bar, Text(f"{probability:6.1%}"))
    return Group(title, bars, *strip(result.timeline, min(width, 100) - 4), Text())


def strip(timeline: Sequence[Moment], width: int) -> tuple[Text, Text, Text]:
    """Three lines of text: the classes along the video, their confidence, and the time axis."""
    start, end = timeline[0].start, timeline[-1].end
    centres = [(m.start + m.end) / 2 for m in timeline]
    columns = []
    for column in range(width):
        time = start + (column + 0.5) / width * (end - start)
        columns.append(min(range(len(timeline)), key=lambda i: abs(centres[i] - time)))
    colours: dict[str, str] = {}
    names = Text("  ")
    for label, group in groupby(columns, key=lambda i: timeline[i].label):
        length = len(list(group))
        colour = colours.setdefault(label, COLOURS[len(colours) % len(COLOURS)])
        name = label if cell_len(label) < length else set_cell_size(label, max(0, length - 2)) + "…"
        names.append(set_cell_size(f"▏{name}", length), style=f"black on {colour}")
    confidence = "".join(LEVELS[min(7, int(8 * timeline[i].probability))] for i in columns)
    first, last = f"{start:.1f} s", f"{end:.1f} s"
    return names, Text(f"  {confidence}", style="dim"), Text(f"  {first}{last:>{width - len(first)}}", style="dim")
