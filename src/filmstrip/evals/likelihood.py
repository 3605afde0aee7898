"""Likelihood of held-out clips under a generator: nats, and bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.errors import Diverged, UserError
from filmstrip.evals.clips import map_clips
from filmstrip.inference import inference
from filmstrip.protocols import Batch, LikelihoodModel
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Likelihood(Evaluation):
    """Bits/dim by the ``log_prob`` of a :class:`~filmstrip.protocols.LikelihoodModel`."""

    requires: ClassVar[frozenset[str]] = frozenset()
    num_videos: Count | None = None
    """Number of videos, the first of the split; by default all."""
    batch_size: Count = 16
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective has a likelihood."""
        if not isinstance(subject.objective, LikelihoodModel):
            raise UserError(f"{type(subject.objective).__name__} has no likelihood (log_prob)")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``bits_per_dim``, its standard error over clips, and ``nats`` per clip; lower is better.

        Raises:
            UserError: the objective has no likelihood, it is not finite, or no clip is readable.
        """
        self.check(subject)
        objective = subject.objective
        assert isinstance(objective, LikelihoodModel), "checked above"
        nats: list[Tensor] = []
        bits: list[Tensor] = []

        def log_likelihood(batch: Batch, before: int) -> tuple[Tensor, int]:
            with inference(objective):
                return -objective.log_prob(batch).double().cpu(), objective.dims_of(batch)

        for found, dims in map_clips(
            subject, log_likelihood, self.split, max_clips=self.num_videos, batch_size=self.batch_size
        ):
            nats.append(found)
            bits.append(found / (math.log(2) * dims))
        each = torch.cat(bits)
        count = len(each)
        if not each.isfinite().all():
            raise Diverged("the likelihood is not finite: the model's training diverged")
        yield f"bits_per_dim/n{count}", float(each.mean())
        if count > 1:
            yield f"bits_per_dim_error/n{count}", float(each.std() / math.sqrt(count))
        yield f"nats/n{count}", float(torch.cat(nats).mean())
