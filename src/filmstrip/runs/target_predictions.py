"""Predictions of several classes, or of numbers, for the videos of a split: their metrics, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstrip.files import write_csv
from filmstrip.runs.contents import CLASSES, PREDICTIONS
from filmstrip.runs.predictions import TOP_K, ranked


@dataclass(frozen=True)
class SeveralPredictions:
    """Probabilities of each class alone, of each readable video of a split."""

    names: tuple[str, ...]
    labels: Tensor
    """1 for each true class, ``N K`` float32."""
    probabilities: Tensor
    """Sigmoid averaged over views, ``N K``."""
    classes: tuple[str, ...]
    unreadable: int
    """Number of unreadable videos of the split; they are excluded from all metrics."""

    def average_precision(self) -> Tensor:
        """Average precision of each class, ``K``: the area under the steps of its precision by recall; NaN for a
        class that no video has."""
        from torchmetrics.functional.classification import multilabel_average_precision

        count = len(self.classes)
        found = multilabel_average_precision(self.probabilities, self.labels.long(), num_labels=count, average="none")
        return torch.where(self.labels.sum(dim=0) > 0, torch.as_tensor(found), torch.nan)

    def metrics(self) -> Iterator[tuple[str, float]]:
        """``mAP``, the mean over the classes that occur; ``hit1``, the share of videos whose most probable class is
        one of theirs; ``count`` and ``unreadable``."""
        yield "mAP", float(self.average_precision().nanmean())
        best = self.probabilities.argmax(dim=1, keepdim=True)
        yield "hit1", float(self.labels.gather(1, best).mean())
        yield "count", float(len(self.names))
        yield "unreadable", float(self.unreadable)

    def rows(self, top_k: int = TOP_K) -> Iterator[dict[str, Any]]:
        """A row of a table for each file: its classes, and the ``top_k`` most probable ones."""
        for name, label, probabilities in zip(self.names, self.labels, self.probabilities):
            true = ";".join(self.classes[i] for i in label.nonzero()[:, 0].tolist())
            yield {"file": _readable(name), "label": true, **ranked(probabilities, self.classes, top_k)}

    def write(self, folder: Path, top_k: int = TOP_K) -> None:
        """Write the table of predictions and the figures of each class into a folder, as CSV."""
        write_csv(list(self.rows(top_k)), folder / PREDICTIONS)
        counts, found = self.labels.sum(dim=0).tolist(), self.average_precision().tolist()
        figures = [
            {"class": name, "videos": int(count), "average_precision": None if math.isnan(value) else value}
            for name, count, value in zip(self.classes, counts, found)
        ]
        write_csv(figures, folder / CLASSES)


@dataclass(frozen=True)
class NumberPredictions:
    """Predicted numbers of each readable video of a split."""

    names: tuple[str, ...]
    labels: Tensor
    """True numbers, ``N K`` float32."""
    predicted: Tensor
    """Predictions averaged over views, ``N K``."""
    classes: tuple[str, ...]
    """Names of the numbers."""
    unreadable: int
    """Number of unreadable videos of the split; they are excluded from all metrics."""

    def metrics(self) -> Iterator[tuple[str, float]]:
        """``mae`` (mean absolute error), ``spearman`` and ``pearson`` (correlations), means over the numbers, of
        several also each one's as ``mae/NAME``; ``count`` and ``unreadable``. A correlation with what does not vary
        is NaN."""
        figures = [_figures(self.predicted[:, i], self.labels[:, i]) for i in range(len(self.classes))]
        for name in figures[0]:
            values = [one[name] for one in figures]
            yield name, sum(values) / len(values)
            if len(values) > 1:
                yield from ((f"{name}/{which}", value) for which, value in zip(self.classes, values))
        yield "count", float(len(self.names))
        yield "unreadable", float(self.unreadable)

    def rows(self, top_k: int = TOP_K) -> Iterator[dict[str, Any]]:
        """A row of a table for each file: each number, and its prediction."""
        for name, label, predicted in zip(self.names, self.labels.tolist(), self.predicted.tolist()):
            row: dict[str, Any] = {"file": _readable(name)}
            for which, true, value in zip(self.classes, label, predicted):
                row |= {which: round(true, 6), f"{which} predicted": round(value, 6)}
            yield row

    def write(self, folder: Path, top_k: int = TOP_K) -> None:
        """Write the table of predictions into a folder, as CSV."""
        write_csv(list(self.rows(top_k)), folder / PREDICTIONS)


def _figures(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """The error of one number and its correlations with the truth."""
    error = float((predicted - true).abs().mean())
    if len(true) < 2 or not (predicted.std() > 0 and true.std() > 0):
        return {"mae": error, "spearman": math.nan, "pearson": math.nan}
    from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

    pair = predicted.double(), true.double()
    return {"mae": error, "spearman": float(spearman_corrcoef(*pair)), "pearson": float(pearson_corrcoef(*pair))}


def targets_of(targets: Sequence[Any], numbers: Sequence[int] | None, count: int) -> Tensor:
    """The targets of samples as rows, ``N K``; classes placed where the model has them (``numbers``)."""
    rows = torch.stack([target.tensor() for target in targets])
    if numbers is None:
        return rows
    placed = torch.zeros(len(rows), count)
    placed[:, list(numbers)] = rows
    return placed


def _readable(name: str) -> str:
    """A file's name without bytes that are no UTF-8 (surrogates)."""
    return name.encode("utf-8", "replace").decode()
