"""Power laws of loss against compute: the lower envelope of many runs, fits, and how sure they are.

Hoffmann et al. 2022 ("Training Compute-Optimal Large Language Models", approach 1) for the envelope; Hestness et al.
2017 for the form with an offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LEAST = 3
"""Minimum number of points of a fit."""


class Point(NamedTuple):
    """One measurement."""

    size: int
    """Index of the size in the ladder."""
    compute: float
    """Multiply-adds that were spent on it until then."""
    loss: float
    """Loss on unseen data, nats a token."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """``loss = offset + factor * compute ** -exponent``."""

    factor: float
    exponent: float
    offset: float = 0.0
    r2: float
    """Share of the variance that it explains: of the loss's logarithm without an offset, of the loss with one."""

    def __call__(self, compute: float) -> float:
        """The loss at a compute."""
        return self.offset + self.factor * compute**-self.exponent


def envelope(points: Sequence[Point]) -> list[Point]:
    """The points that no other with as little compute beats, by rising compute and falling loss."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.compute, point.loss)):
        if not found or point.loss < found[-1].loss:
            found.append(point)
    return found


def straight(points: Sequence[Point]) -> PowerLaw:
    """The straight line through the points in log-log, by least squares.

    Raises:
        ValueError: there are fewer than three.
    """
    compute, loss = _arrays(points)
    x, y = np.log(compute), np.log(loss)
    slope, intercept = np.polyfit(x - x.mean(), y, 1)
    r2 = _explained(y, intercept + slope * (x - x.mean()))
    return PowerLaw(factor=float(np.exp(intercept - slope * x.mean())), exponent=float(-slope), r2=r2)


def with_offset(points: Sequence[Point]) -> PowerLaw:
    """``a + b C^-c`` by least squares of the loss, with neither ``a`` nor ``b`` below zero.

    For each of many exponents the other two follow linearly; the best exponent is kept.

    Raises:
        ValueError: there are fewer than three points.
    """
    compute, loss = _arrays(points)
    reach = compute / compute.min()
    best: tuple[float, float, float, float] | None = None
    for exponent in np.geomspace(1e-3, 4, 800):
        power = reach**-exponent
        centred = power - power.mean()
        factor = max(0.0, float(centred @ loss / max(float(centred @ centred), 1e-300)))
        offset = float(loss.mean() - factor * power.mean())
        if offset < 0:
            offset, factor = 0.0, float(power @ loss / (power @ power))
        error = float(np.square(loss - offset - factor * power).sum())
        if best is None or error < best[0]:
            best = error, factor, float(exponent), offset
    assert best is not None, "there are exponents"
    _, factor, exponent, offset = best
    r2 = _explained(loss, offset + factor * reach**-exponent)
    return PowerLaw(factor=factor * float(compute.min()) ** exponent, exponent=exponent, offset=offset, r2=r2)


def exponent_interval(points: Sequence[Point], *, resamples: int = 1000, seed: int = 0) -> tuple[float, float] | None:
    """The 95% bootstrap interval of the envelope's exponent, by :func:`straight`.

    Whole sizes are drawn, with replacement, since the measurements of one run depend on each other; each draw has an
    envelope of its own. None if fewer than half of the draws leave three points of two sizes.
    """
    rng = np.random.default_rng(seed)
    sizes = sorted({point.size for point in points})
    exponents = []
    for _ in range(resamples):
        drawn = set(rng.choice(sizes, len(sizes)).tolist())
        chosen = envelope([point for point in points if point.size in drawn])
        if len(chosen) >= LEAST and len({point.size for point in chosen}) > 1:
            exponents.append(straight(chosen).exponent)
    if 2 * len(exponents) < resamples:
        return None
    low, high = np.quantile(exponents, (0.025, 0.975))
    return float(low), float(high)


def _arrays(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    if len(points) < LEAST:
        raise ValueError(f"a power law needs at least {LEAST} points, got {len(points)}")
    return np.array([point.compute for point in points], float), np.array([point.loss for point in points], float)


def _explained(values: np.ndarray, predicted: np.ndarray) -> float:
    spread = float(np.square(values - values.mean()).sum())
    return 1 - float(np.square(values - predicted).sum()) / spread if spread else 1.0
