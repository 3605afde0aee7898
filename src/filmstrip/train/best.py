"""The best step so far by a metric of the evaluations, and how long there has been none better."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from filmstrip.errors import UserError
from filmstrip.protocols import EVALUATION
from filmstrip.train.config import Loop

_LOWEST = {
    "bits", "distance", "ece", "ed", "error", "fid", "fvd", "kvd", "levenshtein", "loss", "lpips", "mae", "mse",
    "nats", "perplexity", "rank", "rmse",
}  # fmt: skip
"""Words in the names of metrics of which the lowest value is the best."""


class Best:
    """Follows one metric over the evaluations of a run; without ``loop.best`` it follows nothing.

    The evaluations that a run has recorded tell the whole, so that a resumed run goes on with the same best.
    """

    def __init__(self, loop: Loop) -> None:
        self.metric = None if loop.best is None else loop.best.removeprefix(EVALUATION)
        self.patience = loop.patience
        self.step: int | None = None
        """The best step so far; none before the first evaluation."""
        self.value = math.nan
        self.last: int | None = None
        """The step of the last evaluation."""
        self._lowest = self.metric is not None and is_lowest(self.metric, loop.best_is)
        self._waited = 0

    def __bool__(self) -> bool:
        """Whether there is a metric to follow."""
        return self.metric is not None

    @property
    def is_exhausted(self) -> bool:
        """Whether the last ``patience`` evaluations were no better."""
        return self.patience is not None and self._waited >= self.patience

    def replay(self, recorded: Iterable[tuple[int, float]]) -> None:
        """Take the steps and values that were recorded before, in their order."""
        for step, value in recorded:
            if step != self.last:  # repeated after a resume
                self._take(step, value)

    def is_improved_by(self, values: Mapping[str, float], step: int) -> bool:
        """Take the values of an evaluation, by their recorded names; whether they are the best so far.

        Raises:
            UserError: the metric is not among them.
        """
        check_metric(str(self.metric), (name.removeprefix(EVALUATION) for name in values))
        return self._take(step, values[f"{EVALUATION}{self.metric}"])

    def __str__(self) -> str:
        return f"{'lowest' if self._lowest else 'highest'} {self.metric} {self.value:.4g} after step {self.step}"

    def _take(self, step: int, value: float) -> bool:
        self.last = step
        better = value < self.value if self._lowest else value > self.value
        if better or (self.step is None or math.isnan(self.value)):
            self.step, self.value, self._waited = step, value, 0
            return True
        self._waited += 1
        return False


def is_lowest(metric: str, told: str) -> bool:
    """Whether the lowest value of a metric is the best: as ``told`` (``lowest``, ``highest``), or by its name
    (``auto``)."""
    if told != "auto":
        return told == "lowest"
    return not _LOWEST.isdisjoint(re.split(r"[^a-z]+", metric.lower()))


def check_metric(metric: str, names: Iterable[str]) -> None:
    """See that evaluations yield a metric.

    Raises:
        UserError: they do not; lists those that they yield.
    """
    known = list(names)
    if metric.removeprefix(EVALUATION) not in known:
        raise UserError(
            f"train.best is {metric!r}, which the run's evaluations do not measure; they measure {', '.join(known)}"
        )
