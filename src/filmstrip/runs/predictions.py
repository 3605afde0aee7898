"""Predictions of a classifier for the videos of a split: what they come to, and the tables that keep them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstrip.bounds import Count, check_numbers
from filmstrip.errors import UserError
from filmstrip.files import check_table_name, write_csv
from filmstrip.runs.contents import CLASSES, CONFUSION, PREDICTIONS

TOP_K = 5
"""Number of classes that a table of predictions has for each file."""


@dataclass(frozen=True, kw_only=True)
class PredictionTable:
    """The table of predictions that an evaluation is to write, beside those that a run folder keeps."""

    path: Path | None = None
    """File to write, CSV, Parquet or JSON by its extension; none for none."""
    top_k: Count = TOP_K
    """Number of classes for each file."""
    per_clip: bool = False
    """Whether single clips have rows, too."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.path is not None:
            check_table_name(self.path)


NO_TABLE = PredictionTable()


@dataclass(frozen=True)
class ClipPredictions:
    """Class probabilities of the single clips of a split's videos."""

    video: Tensor
    """Index of each clip's video in the predictions, ``C`` int64."""
    spans: Tensor
    """Start and end of each clip, seconds, ``C 2``."""
    probabilities: Tensor
    """Softmax averaged over a clip's crops, ``C K``."""


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of each readable video of a split."""

    names: tuple[str, ...]
    labels: Tensor
    """True classes, ``N`` int64."""
    probabilities: Tensor
    """Softmax averaged over views, ``N K``."""
    classes: tuple[str, ...]
    unreadable: int
    """Number of unreadable videos of the split; they are excluded from all metrics."""
    clips: ClipPredictions | None = None
    """Those of single clips, where they were asked for."""
    probe: str | None = None
    """Name of the probe that made them; none of a classifier."""

    def confusion(self) -> Tensor:
        """``K K`` counts: row is the true class, column the predicted one."""
        # Importing torchmetrics imports all of it, with transformers and scipy where they are installed.
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.probabilities, self.labels, num_classes=len(self.classes))

    def accuracy(self, top_k: int = 1) -> float:
        """Share of videos whose class is among the ``top_k`` most probable."""
        from torchmetrics.functional.classification import multiclass_accuracy

        num_classes = len(self.classes)
        return float(multiclass_accuracy(self.probabilities, self.labels, num_classes, average="micro", top_k=top_k))

    def mean_class_accuracy(self) -> float:
        """Accuracy within each class, averaged over the classes that occur in the split."""
        found = [each.recall for each in self.by_class() if each.recall is not None]
        return sum(found) / len(found)

    def by_class(self) -> list[ClassFigures]:
        """The figures of each class, in the order of the classes."""
        confusion = self.confusion()
        rows = zip(
            self.classes, confusion.sum(dim=1).tolist(), confusion.sum(dim=0).tolist(), confusion.diag().tolist()
        )
        return [ClassFigures(*row) for row in rows]

    def rows(self, top_k: int = TOP_K) -> Iterator[dict[str, Any]]:
        """A row of a table for each file: its class, and the ``top_k`` most probable ones. With clips, each row of a
        file is followed by those of its clips, numbered from 0, which the file's own row is not."""
        for i, name in enumerate(self.names):
            # A name may hold bytes that are no UTF-8 (surrogates).
            about = {"file": name.encode("utf-8", "replace").decode(), "label": self.classes[int(self.labels[i])]}
            if self.clips is None:
                yield about | ranked(self.probabilities[i], self.classes, top_k)
                continue
            yield about | _clip(None, None, None) | ranked(self.probabilities[i], self.classes, top_k)
            for number, c in enumerate((self.clips.video == i).nonzero()[:, 0].tolist()):
                start, end = (round(time, 3) for time in self.clips.spans[c].tolist())
                scores = ranked(self.clips.probabilities[c], self.classes, top_k)
                yield about | _clip(number, start, end) | scores


@dataclass(frozen=True)
class ClassFigures:
    """How often a class was met, predicted, and both."""

    name: str
    videos: int
    """Number of videos of the class."""
    predicted: int
    """Number of videos that were predicted to be of it."""
    correct: int
    """Number of its videos that were predicted to be of it."""

    @property
    def recall(self) -> float | None:
        """Share of its videos that were predicted as such; none if it has no videos."""
        return self.correct / self.videos if self.videos else None

    @property
    def precision(self) -> float | None:
        """Share of its predictions that are correct; none if it was never predicted."""
        return self.correct / self.predicted if self.predicted else None


def ranked(probabilities: Tensor, classes: Sequence[str], top_k: int) -> dict[str, Any]:
    """The ``top_k`` most probable classes of ``K`` probabilities as cells: ``class_1``, ``score_1``, ..."""
    best = probabilities.topk(min(top_k, len(classes)))
    return as_cells((classes[i], score) for i, score in zip(best.indices.tolist(), best.values.tolist()))


def as_cells(top: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """Classes and their probabilities, the most probable first, as cells: ``class_1``, ``score_1``, ..."""
    cells: dict[str, Any] = {}
    for rank, (name, score) in enumerate(top, 1):
        cells |= {f"class_{rank}": name, f"score_{rank}": round(score, 6)}
    return cells


def _clip(number: int | None, start: float | None, end: float | None) -> dict[str, Any]:
    return {"clip": number, "start": start, "end": end}


def keep_predictions(predictions: Predictions, folder: Path, top_k: int = TOP_K) -> None:
    """Write the table of predictions, the figures of each class and the confusion matrix into a folder, as CSV."""
    write_csv(list(predictions.rows(top_k)), folder / PREDICTIONS)
    figures = [
        {
            "class": each.name,
            "videos": each.videos,
            "predicted": each.predicted,
            "correct": each.correct,
            "recall": each.recall,
            "precision": each.precision,
        }
        for each in predictions.by_class()
    ]
    write_csv(figures, folder / CLASSES)
    counts = predictions.confusion().tolist()
    header = ["true class", *predictions.classes]
    rows = [dict(zip(header, [name, *row])) for name, row in zip(predictions.classes, counts)]
    write_csv(rows, folder / CONFUSION, header)


def kept_predictions(folder: Path, classes: Sequence[str]) -> Predictions | None:
    """The predictions that a folder keeps, zero for classes that its table does not have; none without a table.

    Raises:
        UserError: the table is damaged, or of other classes.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        return None
    places = {name: i for i, name in enumerate(classes)}
    names, labels, probabilities = [], [], []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("clip"):
                    continue
                scores = torch.zeros(len(classes))
                for rank in range(1, len(classes) + 1):
                    if f"class_{rank}" not in row:
                        break
                    scores[places[row[f"class_{rank}"]]] = float(row[f"score_{rank}"])
                names.append(row["file"])
                labels.append(places[row["label"]])
                probabilities.append(scores)
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged, or of other classes than the run's: {error!r}") from None
    if not names:
        return None
    return Predictions(tuple(names), torch.tensor(labels), torch.stack(probabilities), tuple(classes), 0)
