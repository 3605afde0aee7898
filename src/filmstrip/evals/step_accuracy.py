"""Accuracy of the next step, the step of a clip or the task of a video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from filmstrip.bounds import Count, Seed
from filmstrip.evals import procedures as metrics
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class StepAccuracy(Evaluation):
    """Top-1 and class-mean recall@5 over all target steps."""

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
        """Yield ``top1``, ``class_mean_recall@5`` (for six classes or more) and ``count``.

        Raises:
            UserError: the objective is not a forecaster, or the data are not procedures.
        """
        found = metrics.forecasts(
            subject, split=self.split, samples=self.samples, seed=self.seed, batch_size=self.batch_size
        )
        yield "top1", metrics.top1(found.predicted, found.true)
        scores = found.probabilities.mean(dim=1).flatten(0, 1)
        if scores.shape[1] > 5:
            yield "class_mean_recall@5", metrics.class_mean_recall(scores, found.true.flatten())
        yield "count", float(len(found.true))
