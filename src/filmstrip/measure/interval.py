"""Confidence intervals: of means over few seeds, and of shares of trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""The 97.5% quantiles of Student's distribution with 1, 2, ... degrees of freedom; more are taken for the last."""


def half_interval(values: Sequence[float]) -> float:
    """Half of the 95% interval (Student's) of the mean of some values; infinite for a single one."""
    count = len(values)
    if count == 1:
        return math.inf
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return T_975[min(count - 1, len(T_975)) - 1] * deviation / math.sqrt(count)


def binomial_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a probability from so many successes (Clopper and Pearson 1934): the shares at which as many
    or more, and as few or fewer, would each be seen with half of what ``level`` leaves."""
    tail = (1 - level) / 2
    low = _share_where(lambda share: _at_most(trials - successes, trials, 1 - share) - tail) if successes else 0.0
    high = _share_where(lambda share: tail - _at_most(successes, trials, share)) if successes < trials else 1.0
    return low, high


def _at_most(count: int, trials: int, share: float) -> float:
    """Probability of at most ``count`` successes."""
    if share in (0.0, 1.0):
        return float(share == 0.0 or count == trials)
    logs = math.log(share), math.log1p(-share)
    ways = [math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in range(count + 1)]
    return math.fsum(math.exp(way + k * logs[0] + (trials - k) * logs[1]) for k, way in enumerate(ways))


def _share_where(rising: Callable[[float], float]) -> float:
    """The root of a function that rises from below zero to above it between 0 and 1."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
