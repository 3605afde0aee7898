"""Predictions of a trained classifier for files: the most probable classes overall, and along a timeline."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from filmstrip.commands.stopping import keeping
from filmstrip.data.layouts.folder import find_media
from filmstrip.data.layouts.manifest import manifest_of
from filmstrip.data.layouts.shards import is_shards
from filmstrip.data.reading.views import read_views
from filmstrip.data.sample import Sample
from filmstrip.data.sources import open_videos
from filmstrip.errors import UserError, in_words
from filmstrip.files import GrowingTable, check_table_name
from filmstrip.progress import tracked
from filmstrip.runs.classifiers import Moment, Prediction, VideoClassifier, load_classifier
from filmstrip.runs.predictions import as_cells
from filmstrip.video import DecodeError
from filmstrip.video.remote import address_of

NUM_CROPS = 3
"""Number of square crops of each clip, along its longer side."""
COLOURS = ("blue", "green", "magenta", "cyan", "yellow", "red")
LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Failure:
    """A file that cannot be read."""

    path: str
    reason: str


class Item(NamedTuple):
    """A video to classify."""

    name: str
    sample: Sample
    label: str | None = None
    """Its class, where a folder or a manifest says."""


def predict_files(
    source: str | Path,
    paths: Sequence[Path],
    *,
    top_k: int = 5,
    num_clips: int = 4,
    as_json: bool = False,
    out: Path | None = None,
    fps: float | None = None,
    last: bool = False,
) -> int:
    """Print the classifier's prediction for each file, or write them to the table ``out``, a row as soon as it is
    known; returns 1 if some could not be read, else 0. With ``fps`` folders of images are films of so many frames per
    second. The weights are those of the ``last`` step, or those that the run kept.

    A file that cannot be read is reported and does not stop the others.

    Raises:
        UserError: there are no files, a folder or a manifest cannot be opened, the source is not a classifier, or the
            table has no known format.
    """
    if not paths:
        raise UserError("predict needs videos: filmstrip predict RUN FILE|FOLDER|MANIFEST ...")
    if out is not None:
        check_table_name(out)
    items = [item for path in paths for item in items_at(path, fps)]
    classifier = load_classifier(source, last=last)
    console, failures = Console(), 0
    results: list[Prediction | Failure] = []
    with ExitStack() as open_files:
        table = None
        if out is not None:
            open_files.enter_context(
                keeping(lambda: f"{out} keeps {table.count if table else 0} of {len(items)} rows")
            )
            table = open_files.enter_context(GrowingTable(out, _columns(items, classifier, top_k)))
        # What is printed for each file shows the progress.
        for item in tracked(items, "predicting") if as_json or table else items:
            result = _predict(classifier, item, top_k=top_k, num_clips=num_clips)
            failures += isinstance(result, Failure)
            if table is not None:
                table.add(_row(item, result))
            if as_json:
                results.append(result)
            elif table is None or isinstance(result, Failure):
                console.print(render(result, console.width), soft_wrap=isinstance(result, Failure))
    if as_json:
        json.dump({"run": str(source), "files": [asdict(result) for result in results]}, sys.stdout, indent=2)
        print()
    if out is not None:
        print(f"{out}: {len(items)} files" + (f", {failures} unreadable" if failures else ""), file=sys.stderr)
    return int(failures > 0)


def items_at(path: Path, fps: float | None = None) -> list[Item]:
    """The videos at a path: a file, all videos and images in a folder, or what a manifest or shards hold; ``fps`` is
    as in :func:`predict_files`.

    Raises:
        UserError: there is nothing in it, or a manifest is invalid.
    """
    if path.is_dir() and not manifest_of(path) and not is_shards(path):
        found = list(find_media(path, films=True, every=fps is not None))
        if not found:
            raise UserError(f"{path} holds no videos and no images")
        return [Item(file, Sample(path=file, name=file, fps=fps if os.path.isdir(file) else None)) for file in found]
    if path.is_dir() or manifest_of(path) or is_shards(path):
        source = open_videos(path, fps)
        labels = [None if s.label is None else source.classes[s.label] for s in source.samples]
        return [Item(sample.name, sample, label) for sample, label in zip(source.samples, labels)]
    name = address_of(path) or str(path)
    return [Item(name, Sample(path=name, name=name))]


def _predict(classifier: VideoClassifier, item: Item, *, top_k: int, num_clips: int) -> Prediction | Failure:
    sample = item.sample
    try:
        views = read_views(
            sample.file(),
            classifier.clip,
            num_clips=num_clips,
            num_crops=NUM_CROPS,
            backend=classifier.backend,
            part=(sample.start, sample.end),
        )
    except DecodeError as error:
        return Failure(item.name, error.reason)
    except (UserError, OSError) as error:
        return Failure(item.name, in_words(error) if isinstance(error, OSError) else str(error))
    return classifier.predict_views(item.name, views, top_k=top_k)


def _columns(items: Sequence[Item], classifier: VideoClassifier, top_k: int) -> list[str]:
    labels = ["label"] if any(item.label is not None for item in items) else []
    if classifier.objective.labels == "number":
        found = [f"{name} predicted" for name in classifier.classes]
    else:
        ranks = range(1, min(top_k, len(classifier.classes)) + 1)
        found = [name for rank in ranks for name in (f"class_{rank}", f"score_{rank}")]
    return ["file", *labels, *found, "damaged", "error"]


def _row(item: Item, result: Prediction | Failure) -> dict[str, Any]:
    """The row of a file, as those that an evaluation writes; why it has no prediction, if it cannot be read."""
    row: dict[str, Any] = {"file": item.name} | ({} if item.label is None else {"label": item.label})
    if isinstance(result, Failure):
        return row | {"error": result.reason}
    numbers = {f"{name} predicted": round(value, 6) for name, value in result.top}
    found = numbers if result.labels == "number" else as_cells(result.top)
    return row | found | {"damaged": result.damaged}


def render(result: Prediction | Failure, width: int = 80) -> RenderableType:
    """A prediction as text for a terminal: bars of the most probable classes, then the timeline."""
    if isinstance(result, Failure):
        return Text.assemble((result.path, "bold"), ("  unreadable: ", "red"), result.reason)
    title = Text(result.path, style="bold")
    if result.damaged:
        title.append("  (some frames are damaged)", style="yellow")
    if result.labels == "number":
        return Group(title, *_numbers(result), Text())
    bars = Table(box=None, show_header=False, padding=(0, 1))
    for label, probability in result.top:
        bar = Text("━" * max(1, round(30 * probability)), style="bold green" if label == result.top[0][0] else "dim")
        bars.add_row(Text(label), bar, Text(f"{probability:6.1%}"))
    return Group(title, bars, *strip(result.timeline, min(width, 100) - 4), Text())


def _numbers(result: Prediction) -> list[RenderableType]:
    """The numbers of a file, and the first one along its clips."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    for name, value in result.top:
        table.add_row(Text(name), Text(f"{value:.4g}", style="bold green"))
    along = Table(box=None, show_header=False, padding=(0, 1))
    for moment in result.timeline:
        along.add_row(Text(f"  {moment.start:.1f} to {moment.end:.1f} s", style="dim"), f"{moment.probability:.4g}")
    return [table, along] if len(result.timeline) > 1 else [table]


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
