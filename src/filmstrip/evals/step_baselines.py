"""Forecasting baselines that use step sequences alone, without video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.evals import procedures as metrics
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class StepBaselines(Evaluation):
    """Top-1 accuracy of the most frequent step, of the last observed step, and of its most frequent successor.

    The last two use the true step of the last clip, which a forecaster has to recognise. Frequencies are those of the
    training split; the objective is not used.
    """

    uses_training_split: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = metrics.REQUIRES

    batch_size: Count = 64
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``majority/top1``; where the last clip's step is known, ``last_step/top1``, ``successor/top1``.

        Raises:
            UserError: the data are not procedures, or a split has no window.
        """
        train, test = (self._pairs(subject, split) for split in (subject.data.train_split, self.split))
        size = len(subject.source.classes)
        majority = torch.bincount(train[:, 1], minlength=size).argmax()
        yield "majority/top1", metrics.top1(majority.expand(len(test)), test[:, 1])
        if (test[:, 0] < 0).any() or (train[:, 0] < 0).any():
            return
        counts = torch.bincount(train[:, 0] * size + train[:, 1], minlength=size * size).view(size, size)
        successor = torch.where(counts.any(dim=1), counts.argmax(dim=1), majority)
        yield "last_step/top1", metrics.top1(test[:, 0], test[:, 1])
        yield "successor/top1", metrics.top1(successor[test[:, 0]], test[:, 1])

    def _pairs(self, subject: Subject, split: str | None) -> Tensor:
        """The step of the last observed clip (-1 if unknown) and each target step, ``n 2``."""
        pairs = []
        for batch in metrics.procedure_batches(subject, split, self.batch_size):
            for step, seen, target in zip(batch["step"].cpu(), batch["seen"].cpu(), batch["target"].cpu()):
                last = step[seen & ~target][-1:] if (seen & ~target).any() else step.new_tensor([-1])
                pairs.append(torch.stack([last.expand(int(target.sum())), step[target]], dim=1))
        return torch.cat(pairs)
