"""Procedure planning: agreement of planned steps from a start to a goal with the true ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from filmstrip.bounds import Count, Seed
from filmstrip.evals import procedures as metrics
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Planning(Evaluation):
    """Success rate, mean accuracy and mean IoU (Chang et al. 2020), each a share from 0 to 1.

    ``miou`` compares each sequence's set of steps, as PDPP's public evaluation does one sequence at a time.
    ``miou_of_ids`` is that of SCHEMA's public code, computed on the bits of step ids: useful only for comparison with
    published tables that follow it.
    """

    requires: ClassVar[frozenset[str]] = metrics.REQUIRES

    samples: Count = 1
    """Number of samples whose probabilities are averaged."""
    seed: Seed = 0
    """Base seed; window ``i`` of the split uses ``seed + i``."""
    batch_size: Count = 64
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective is a forecaster, and the data are procedures."""
        metrics.forecaster_of(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``success_rate``, ``mean_accuracy``, ``miou``, ``miou_of_ids`` and ``count``.

        Raises:
            UserError: the objective is not a forecaster, or the data are not procedures.
        """
        found = metrics.forecasts(
            subject, split=self.split, samples=self.samples, seed=self.seed, batch_size=self.batch_size
        )
        yield "success_rate", metrics.success_rate(found.predicted, found.true)
        yield "mean_accuracy", metrics.top1(found.predicted, found.true)
        yield "miou", metrics.mean_iou(found.predicted, found.true)
        yield "miou_of_ids", metrics.mean_iou_of_ids(found.predicted, found.true)
        yield "count", float(len(found.true))
