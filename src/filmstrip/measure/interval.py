"""Confidence intervals of means over few seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
