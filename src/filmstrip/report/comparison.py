"""Classifiers side by side: how right, how big, how fast, and where the best of them errs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from filmstrip.data.config import Clip as ClipConfig
from filmstrip.data.config import Data
from filmstrip.data.loader import eval_batches
from filmstrip.data.sources import Source
from filmstrip.evals.multi_view import Predictions
from filmstrip.report.clips import Clip, Clips
from filmstrip.report.confusion import ConfusionMatrix
from filmstrip.report.curves import Curves
from filmstrip.report.page import Group
from filmstrip.report.run import history
from filmstrip.report.sections import Column, Table

WHOLE_VIDEO = ClipConfig(num_frames=24, sampling="uniform", size=112, short_side=(112, 112))
"""How test videos are cut for the page."""
FPS = 12.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One trained classifier of a comparison."""

    name: str
    folder: Path
    predictions: Predictions
    """Of the test split, the same for every entry."""
    parameters: int
    multiply_adds: int
    """Of one clip."""
    clip: ClipConfig
    """What the network sees at once."""
    train_seconds: float
    clips_per_second: float
    """Classified, one by one process, without reading them."""


def best(entries: Sequence[Entry]) -> Entry:
    """The entry with the highest accuracy; the smaller one where two are equal."""
    return max(entries, key=lambda entry: (entry.predictions.accuracy(), -entry.parameters))


def chance(predictions: Predictions) -> float:
    """The accuracy of always naming the commonest class of the test split."""
    return max(Counter(predictions.labels.tolist()).values()) / len(predictions.names)


def comparison_table(entries: Sequence[Entry], notes: Sequence[str] = ()) -> Table:
    """Accuracy with its interval, size and speed of each entry."""
    columns = (
        Column("system"),
        Column("top-1", ".1%", "highest"),
        Column("95% interval"),
        Column("frames a clip"),
        Column("parameters (M)", ".2f"),
        Column("GMACs a clip", ".3f"),
        Column("training (s)", ",.0f"),
        Column("clips/s", ",.0f"),
    )
    rows = []
    for entry in entries:
        accuracy, count = entry.predictions.accuracy(), len(entry.predictions.names)
        low, high = wilson_interval(accuracy, count)
        frames = f"{entry.clip.num_frames} of {entry.clip.size} × {entry.clip.size}"
        size = (frames, entry.parameters / 1e6, entry.multiply_adds / 1e9)
        speed = (entry.train_seconds, entry.clips_per_second)
        rows.append((entry.name, accuracy, f"{low:.0%} to {high:.0%}", *size, *speed))
    predictions = entries[0].predictions
    said = (
        f"Of {len(predictions.names)} test videos; always naming their commonest class would give "
        f"{chance(predictions):.1%}. The interval is Wilson's, for this many videos. Training is wall time, reading "
        "the videos included; clips/s is the network alone, classifying. One G multiply-add (GMAC) is counted as two "
        "floating-point operations by some."
    )
    return Table("Comparison", columns, rows, (said, *notes))


def training_curves(folders: dict[str, Path], values: dict[str, str], title: str = "Training") -> Group:
    """One chart for each of ``values`` (a name in ``metrics.jsonl``: the chart's heading), one curve a run."""
    recorded = {name: history(folder) for name, folder in folders.items()}
    charts = []
    for key, label in values.items():
        curves = {name: series[key] for name, series in recorded.items() if key in series}
        charts.append(Curves(label, curves, smooth=0.6))
    return Group(title, charts)


def confusion_of(entry: Entry) -> ConfusionMatrix:
    """What an entry takes for what."""
    title = f"What {entry.name} takes for what"
    return ConfusionMatrix(title, entry.predictions.confusion(), entry.predictions.classes)


def telling(predictions: Predictions, most: int = 8) -> list[int]:
    """Which test videos to show: the first of each class, then of each class the first further one that is wrong."""
    labels, guesses = predictions.labels.tolist(), predictions.probabilities.argmax(dim=1).tolist()
    first = {label: labels.index(label) for label in sorted(set(labels))}
    wrong: dict[int, int] = {}
    for i, (label, guess) in enumerate(zip(labels, guesses)):
        if guess != label and i != first[label]:
            wrong.setdefault(label, i)
    return list(first.values())[:most] + [wrong[label] for label in sorted(wrong)][: most // 2]


def clips_of(entry: Entry, source: Source, data: Data) -> Clips:
    """Test videos with an entry's predictions, as :func:`telling` picks them."""
    predictions = entry.predictions
    chosen = telling(predictions)
    videos = videos_named(source, replace(data, clip=WHOLE_VIDEO), {predictions.names[i] for i in chosen})
    note = (
        "The first test video of each class, then of each class the first further one that was got wrong; nothing "
        "was picked by hand. Each loop is a whole video, whatever its length."
    )
    shown = [shown_clip(predictions, i, videos[predictions.names[i]]) for i in chosen]
    return Clips(f"Clips, and what {entry.name} says", shown, fps=FPS, note=note)


def shown_clip(predictions: Predictions, index: int, video: Tensor) -> Clip:
    """A test video (``T C H W`` uint8) with what was predicted of it."""
    classes = predictions.classes
    order = predictions.probabilities[index].argsort(descending=True).tolist()
    ranked = [(classes[k], float(predictions.probabilities[index, k])) for k in order]
    return Clip(video, predictions.names[index], ranked, classes[int(predictions.labels[index])])


def videos_named(source: Source, data: Data, names: set[str]) -> dict[str, Tensor]:
    """One clip (``T C H W`` uint8) of each of the named test videos that can be read."""
    samples = tuple(sample for sample in source.samples if sample.split == data.eval_split and sample.name in names)
    batches = eval_batches(replace(source, samples=samples), data, data.eval_split)
    return {name: video for batch in batches for name, video in zip(batch["name"], batch["video"])}


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Where the true share lies with 95% confidence, given the share of ``count`` trials (Wilson 1927)."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - reach), min(1.0, centre + reach)
