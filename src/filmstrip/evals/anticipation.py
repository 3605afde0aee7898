"""Long-term anticipation: the edit distance between the best of several forecasts and the true steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.evals import procedures as metrics
from filmstrip.randomness import uniform
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Anticipation(Evaluation):
    """ED@Z (Grauman et al. 2022): Damerau-Levenshtein distance over Z, the minimum of ``samples`` forecasts."""

    requires: ClassVar[frozenset[str]] = metrics.REQUIRES

    samples: Count = 5
    """Number of forecasts per window, K."""
    lengths: tuple[Count, ...] = (5, 20)
    """Sequence lengths Z; those beyond the data's horizon are omitted, and the horizon itself is always included."""
    greedy: bool = False
    """Whether each position takes its most probable step instead of sampling, as the benchmark's baseline does; a
    deterministic forecaster then has K equal forecasts."""
    seed: Seed = 0
    """Base seed; window ``i`` of the split uses ``seed + i``."""
    batch_size: Count = 64
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective is a forecaster, and the data are procedures."""
        metrics.forecaster_of(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``ed@Z`` and ``levenshtein@Z`` (without transpositions, as in Ego4D's public code), and ``count``.

        Raises:
            UserError: the objective is not a forecaster, or the data are not procedures.
        """
        found = metrics.forecasts(
            subject, split=self.split, samples=self.samples, seed=self.seed, batch_size=self.batch_size
        )
        horizon = found.true.shape[1]
        forecasts = found.probabilities.argmax(dim=-1) if self.greedy else self._drawn(found)
        for length in sorted({z for z in self.lengths if z < horizon} | {horizon}):
            part, true = forecasts[:, :, :length], found.true[:, :length]
            yield f"ed@{length}", metrics.min_edit_distance(part, true)
            yield f"levenshtein@{length}", metrics.min_edit_distance(part, true, transpositions=False)
        yield "count", float(len(found.true))

    def _drawn(self, found: metrics.Forecasts) -> Tensor:
        """Steps sampled from the probabilities of each position, ``N K Z``, with a seed per window."""
        _, draws, positions, _ = found.probabilities.shape
        numbers = uniform(found.index + self.seed, draws * positions, "anticipation.steps")
        numbers = rearrange(numbers, "n (k z) -> n k z 1", k=draws)
        cumulative = found.probabilities.double().cumsum(dim=-1)
        return torch.searchsorted(cumulative, numbers.double() * cumulative[..., -1:], right=True).squeeze(-1)
