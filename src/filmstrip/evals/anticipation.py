"""Long-term anticipation: how many edits lead from the best of several forecasts to what was done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.evals import Evaluation, Subject
from filmstrip.evals import procedures as metrics
from filmstrip.randomness import uniform

SALT_ACTIONS = 0xE001


@dataclass(frozen=True, kw_only=True)
class Anticipation(Evaluation):
    """ED@Z (Grauman et al. 2022): Damerau-Levenshtein over Z, the least of ``samples`` forecasts."""

    requires: ClassVar[frozenset[str]] = metrics.REQUIRES

    samples: Count = 5
    """Forecasts of each window, K."""
    lengths: tuple[Count, ...] = (5, 20)
    """Z; those that the data's horizon does not reach are left out, and the horizon itself is always there."""
    greedy: bool = False
    """Take the most probable step of each place, instead of drawing it as the benchmark's baseline does. A forecaster
    that draws nothing then says the same K times."""
    seed: Seed = 0
    """Window ``i`` of the split draws from ``seed + i``."""
    batch_size: Count = 64
    split: str | None = None
    """By default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective is a forecaster, and the data are procedures."""
        metrics.forecaster_of(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``ed@Z`` and ``levenshtein@Z`` (without swaps, as Ego4D's public code counts), and ``count``.

        Raises:
            UserError: the objective is no forecaster, or the data are no procedures.
        """
        found = metrics.answers(
            subject, split=self.split, samples=self.samples, seed=self.seed, batch_size=self.batch_size
        )
        horizon = found.true.shape[1]
        forecasts = found.probabilities.argmax(dim=-1) if self.greedy else self._drawn(found)
        for length in sorted({z for z in self.lengths if z < horizon} | {horizon}):
            part, true = forecasts[:, :, :length], found.true[:, :length]
            yield f"ed@{length}", metrics.least_edit_distance(part, true)
            yield f"levenshtein@{length}", metrics.least_edit_distance(part, true, transpositions=False)
        yield "count", float(len(found.true))

    def _drawn(self, found: metrics.Answers) -> Tensor:
        """A step of each place from its probabilities, ``N K Z``, each window's from a seed of its own."""
        _, draws, places, _ = found.probabilities.shape
        numbers = uniform(found.index + self.seed, draws * places, SALT_ACTIONS)
        numbers = rearrange(numbers, "n (k z) -> n k z 1", k=draws)
        cumulative = found.probabilities.double().cumsum(dim=-1)
        return torch.searchsorted(cumulative, numbers.double() * cumulative[..., -1:], right=True).squeeze(-1)
