"""Axes of a chart: positions and labels of ticks, and coordinates of values on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TINY = 1e-30
"""Tolerance below which a difference is zero."""


@dataclass(frozen=True)
class Axis:
    """An axis for values from ``low`` to ``high``, from ``start`` to ``end`` in page units."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The page coordinate of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values between ``low`` and ``high``: roughly ``about`` of them."""
        ticks = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high, about)
        slack = 1e-9 * (self.high - self.low)
        return [tick for tick in ticks if self.low - slack <= tick <= self.high + slack]


def fitted(values: Sequence[float], start: float, end: float, *, log: bool = False, margin: float = 0.0) -> Axis:
    """The axis for finite ``values`` (positive ones with ``log``), with a margin at each end, as a share of the
    range."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log:
        low, high = (low, high) if high > low else (low / 2, high * 2)
        widen = (high / low) ** margin
        return Axis(low / widen, high * widen, start, end, log=True)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), TINY):
        room = abs(low) * 0.1 if abs(low) > TINY else 1.0
        low, high = low - room, high + room
    room = (high - low) * margin
    return Axis(low - room, high + room, start, end)


def tick_labels(ticks: Sequence[float], log: bool = False) -> list[str]:
    """Ticks as text, all with the decimals that the finest needs; thousands and millions as ``20k`` and ``30M``."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    if log or not 1e-3 <= largest < 1e10:
        return _short(ticks)
    unit, suffix = next(((u, s) for u, s in ((1e6, "M"), (1e3, "k")) if largest >= 10 * u), (1.0, ""))
    for decimals in range(6):
        if all(abs(tick / unit - round(tick / unit, decimals)) <= 1e-9 * largest / unit for tick in ticks):
            return [f"{tick / unit:.{decimals}f}{suffix}" if tick or not suffix else "0" for tick in ticks]
    return _short(ticks)


def _short(ticks: Sequence[float]) -> list[str]:
    """Ticks with the minimum number of digits that distinguishes them, in scientific notation where that is
    shorter."""
    for digits in range(3, 16):
        labels = [f"{tick:.{digits}g}".replace("e-0", "e-").replace("e+", "e").replace("e0", "e") for tick in ticks]
        if len(set(labels)) == len(labels):
            break
    return labels


def _linear_ticks(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * power / rough)))
    first = math.ceil(low / step - 1e-9)
    # Through text, because 3 * 0.1 is not 0.3.
    return [float(f"{i * step:.12g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high / low > 1e3 else (1, 2, 5)
    every = max(1, len(decades) // 6)
    ticks = [factor * 10.0**decade for decade in decades[::every] for factor in factors]
    if sum(low <= tick <= high for tick in ticks) < 3:
        return _linear_ticks(low, high, 4)
    return ticks
