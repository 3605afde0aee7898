"""Comparison of classifiers: accuracy, size, speed, and the errors of the best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from filmstrip.data.config import Clip, Data
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import Source
from filmstrip.report.clips import CaptionedClip, ClipGallery
from filmstrip.report.confusion import ConfusionMatrix
from filmstrip.report.curves import Curves
from filmstrip.report.page import Group
from filmstrip.report.sections import Cell, Column, Table
from filmstrip.runs.contents import history
from filmstrip.runs.predictions import Predictions

WHOLE_VIDEO = Clip(num_frames=24, sampling="uniform", size=112, short_side=(112, 112))
"""Clip configuration of test videos on the page."""
FPS = 12.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One trained classifier of a comparison."""

    name: str
    folder: Path
    accuracy: float
    """Top-1 accuracy on the test split, the same videos for every entry."""
    videos: int
    """Number of test videos."""
    parameters: int
    multiply_adds: int
    """Multiply-adds of one clip."""
    clip: Clip
    """Clip configuration of the network's input."""
    training_memory: int
    """Memory of a training step, bytes."""
    train_seconds: float
    clips_per_second: float | None
    """Inference speed of the network alone, in one process; none if not measured."""

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the accuracy."""
        return wilson_interval(self.accuracy, self.videos)


def best(entries: Sequence[Entry]) -> Entry:
    """The entry of maximum accuracy; the smaller one of equals."""
    return max(entries, key=lambda entry: (entry.accuracy, -entry.parameters))


def chance(labels: Sequence[int]) -> float:
    """The accuracy of always predicting the most frequent class of the test videos."""
    return max(Counter(labels).values(), default=0) / max(1, len(labels))


def comparison_table(
    entries: Sequence[Entry],
    naming_commonest: float,
    notes: Sequence[str] = (),
    failures: Mapping[str, str] | None = None,
) -> Table:
    """Accuracy with its interval, size, speed and memory of each entry, then the systems that failed, and why.

    ``naming_commonest`` is the accuracy of always predicting the most frequent class.
    """
    clips = {(entry.clip.num_frames, entry.clip.size) for entry in entries}
    differ = len(clips) > 1  # a common configuration needs no column
    columns = (
        Column("system"),
        Column("top-1", ".1%", "highest"),
        Column("95% interval"),
        *([Column("frames a clip")] if differ else []),
        Column("parameters (M)", ".2f"),
        Column("GMACs a clip", ".3f"),
        Column("training (s)", ",.0f"),
        Column("step memory (MiB)", ",.0f"),
        Column("clips/s", ",.0f"),
    )
    rows: list[Sequence[Cell]] = []
    for entry in entries:
        low, high = entry.interval
        frames = (_unbroken(f"{entry.clip.num_frames} of {entry.clip.size} × {entry.clip.size}"),) if differ else ()
        size = (entry.parameters / 1e6, entry.multiply_adds / 1e9)
        cost = (entry.train_seconds, entry.training_memory / 2**20, entry.clips_per_second)
        interval = _unbroken(f"{low:.0%} to {high:.0%}")
        rows.append((entry.name, entry.accuracy, interval, *frames, *size, *cost))
    failures = failures or {}
    rows += [(name, None, "failed", *[None] * (len(columns) - 3)) for name in failures]
    note = (
        f"Of {max((entry.videos for entry in entries), default=0)} test videos; always predicting the commonest of "
        f"their classes would give {naming_commonest:.1%}. The interval is Wilson's, for this many videos. "
        "Training is wall time, reading the videos included; clips/s is the network alone, classifying. "
        "GMACs count matrix products and convolutions of the loss; some count one multiply-add as two "
        "floating-point operations. Step memory is computed: "
        "weights, gradients, AdamW's moments, and what a batch's backward pass needs, in float32."
    )
    return Table("Comparison", columns, rows, (note, *notes, *(f"{name}: {why}" for name, why in failures.items())))


def _unbroken(text: str) -> str:
    """Text without line breaks."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def training_curves(folders: dict[str, Path], values: dict[str, str], title: str = "Training") -> Group:
    """One chart for each of ``values`` (a name in ``metrics.jsonl``: the chart's heading), one curve a run."""
    recorded = {name: history(folder) for name, folder in folders.items()}
    charts = []
    for key, label in values.items():
        curves = {name: series[key] for name, series in recorded.items() if key in series}
        charts.append(Curves(label, curves, smooth=0.6))
    return Group(title, charts)


def confusion_of(name: str, predictions: Predictions) -> ConfusionMatrix:
    """The confusion matrix of a classifier."""
    return ConfusionMatrix(f"Confusion matrix of {name}", predictions.confusion(), predictions.classes)


def telling(predictions: Predictions, most: int = 8) -> list[int]:
    """Indices of the test videos to show: the first of each class, then the first further error of each class."""
    labels, guesses = predictions.labels.tolist(), predictions.probabilities.argmax(dim=1).tolist()
    first = {label: labels.index(label) for label in sorted(set(labels))}
    wrong: dict[int, int] = {}
    for i, (label, guess) in enumerate(zip(labels, guesses)):
        if guess != label and i != first[label]:
            wrong.setdefault(label, i)
    return list(first.values())[:most] + [wrong[label] for label in sorted(wrong)][: most // 2]


def clips_of(name: str, predictions: Predictions, source: Source, data: Data) -> ClipGallery:
    """Test videos with a classifier's predictions, selected by :func:`telling`."""
    note = (
        "The first test video of each class, then the first further misclassified one of each class; nothing was "
        "selected by hand. Each loop is a whole video, whatever its length."
    )
    return gallery_of(f"Clips, and the predictions of {name}", predictions, telling(predictions), source, data, note)


def extremes(predictions: Predictions, most: int = 4) -> list[int]:
    """Indices of the test videos that were classified worst and best: up to ``most`` wrong ones whose class was given
    the lowest probability, the lowest first; then as many correct ones with the highest."""
    own = predictions.probabilities.gather(1, predictions.labels[:, None])[:, 0]
    correct = predictions.probabilities.argmax(dim=1) == predictions.labels
    order = own.sort(stable=True).indices.tolist()
    worst = [i for i in order if not correct[i]][:most]
    return worst + [i for i in reversed(order) if correct[i]][:most]


def extremes_of(predictions: Predictions, source: Source, data: Data) -> ClipGallery:
    """The test videos that a classifier predicted worst and best, as :func:`extremes` says."""
    note = (
        "The wrong predictions that gave the true class the lowest probability, then the correct ones that gave it "
        "the highest. Each loop is a whole video, whatever its length; bars are probabilities, averaged over clips."
    )
    return gallery_of("Worst and best predictions", predictions, extremes(predictions), source, data, note)


def class_table(predictions: Predictions) -> Table:
    """The figures of each class, the least recognised first; classes without test videos last."""
    figures = sorted(predictions.by_class(), key=lambda each: (each.recall is None, each.recall or 0.0))
    rows = [(each.name, each.videos, each.recall, each.predicted, each.precision) for each in figures]
    columns = (
        Column("class"),
        Column("test videos", ","),
        Column("recognised", ".0%"),
        Column("predicted", ","),
        Column("of these correct", ".0%"),
    )
    note = "Recognised is the recall of a class, correct of those predicted its precision."
    return Table("Classes", columns, rows, (note,))


def gallery_of(
    title: str, predictions: Predictions, chosen: Sequence[int], source: Source, data: Data, note: str
) -> ClipGallery:
    """The chosen test videos with their predictions; those that cannot be read any more are left out."""
    videos = videos_named(source, replace(data, clip=WHOLE_VIDEO), {predictions.names[i] for i in chosen})
    shown = [
        shown_clip(predictions, i, video) for i in chosen if (video := videos.get(predictions.names[i])) is not None
    ]
    return ClipGallery(title, shown, fps=FPS, note=note)


def shown_clip(predictions: Predictions, index: int, video: Tensor) -> CaptionedClip:
    """A test video (``T C H W`` uint8) with its predictions."""
    classes = predictions.classes
    order = predictions.probabilities[index].argsort(descending=True).tolist()
    # A kept table has no probability of any but the first classes.
    ranked = [(classes[k], share) for k in order if (share := float(predictions.probabilities[index, k])) > 0]
    return CaptionedClip(video, predictions.names[index], ranked, classes[int(predictions.labels[index])])


def videos_named(source: Source, data: Data, names: set[str]) -> dict[str, Tensor]:
    """One clip (``T C H W`` uint8) of each of the named test videos that is readable."""
    samples = tuple(sample for sample in source.samples if sample.split == data.eval_split and sample.name in names)
    batches = EvalLoader(replace(source, samples=samples), data, data.eval_split)
    return {name: video for batch in batches for name, video in zip(batch["name"], batch["video"])}


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's confidence interval, 95% by default, for a share of ``count`` trials (Wilson 1927)."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - reach), min(1.0, centre + reach)
