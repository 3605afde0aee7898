"""The Frechet distance between two sets of features, modelled as Gaussians, and its bias from sample size.

    d^2 = |m_a - m_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2))

(Dowson & Landau 1982; Heusel et al. 2017 for images, Unterthiner et al. 2019 for video.) It is never negative, so
sampling noise adds to it: two samples of one 400-dimensional Gaussian are about 300 apart at 256 samples each, and
39.5 at 2048. To first order this bias is inversely proportional to the number of samples (Chong & Forsyth 2020),
which is how it is estimated here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGE_BIAS = 0.1
"""Maximum share of bias in a distance before a warning is logged."""


class Moments:
    """Count, mean and covariance of a stream of features, in float64 whatever their dtype."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Add features ``N D``; accurate whatever their common offset."""
        if not len(features):
            return
        features = features.detach().to("cpu", torch.float64)
        mean = features.mean(dim=0)
        centred = features - mean
        self._add(len(features), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both streams combined."""
        total = Moments(len(self.mean))
        for part in (self, other):
            total._add(part.count, part.mean, part._scatter)
        return total

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        if not total:
            return
        step = mean - self.mean
        self._scatter = self._scatter + scatter + torch.outer(step, step) * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, ``D D``.

        Raises:
            ValueError: there are fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs two features or more, got {self.count}")
        return self._scatter / (self.count - 1)

    def factor(self) -> Tensor:
        """``A`` (``R D``) with ``A^T A`` the covariance; its rank R is below the count and at most D."""
        values, vectors = torch.linalg.eigh(self.covariance)
        noise = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
        kept = values > noise
        return (vectors[:, kept] * values[kept].sqrt()).T


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet distance of two Gaussians, as FID and FVD report it.

    The trace of the square root is the sum of the singular values of the product of two factors of the covariances:
    no matrix square root is needed, and singular covariances (fewer samples than dimensions) need no special case.

    Raises:
        ValueError: a set has fewer than two features, or they differ in width.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} dimensions cannot be compared")
    root = torch.linalg.svdvals(a.factor() @ b.factor().T).sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * root
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))


@dataclass(frozen=True)
class Frechet:
    """A distance and its estimated bias."""

    distance: float
    bias: float
    """Estimated bias from the number of samples; NaN for fewer than four on a side."""
    counts: tuple[int, int]
    width: int
    """Dimension of the features."""

    @property
    def corrected(self) -> float:
        """The bias-corrected distance, extrapolated to infinitely many samples; noise can make it negative."""
        return self.distance - self.bias

    @property
    def warning(self) -> str | None:
        """A warning if the bias is a large share of the distance, else none."""
        fewest = min(self.counts)
        if fewest >= self.width and self.bias <= LARGE_BIAS * self.distance:
            return None
        text = f"of a Frechet distance of {self.distance:.4g}, about {self.bias:.3g} are bias from having only "
        if math.isnan(self.bias):
            text = f"a Frechet distance of {self.distance:.4g} was measured on only "
        text += f"{self.counts[0]} and {self.counts[1]} samples"
        if fewest < self.width:
            text += f", fewer than the {self.width} dimensions of the features, so even that is an underestimate"
        return f"{text}: compare it only with distances at the same number of samples"


class FrechetPair:
    """The distance between two streams of features, and between halves of them, for the bias."""

    def __init__(self) -> None:
        self._halves: tuple[list[Moments], list[Moments]] = ([], [])

    def update(self, a: Tensor | None = None, b: Tensor | None = None) -> None:
        """Add features ``N D`` of one side or both."""
        for halves, features in zip(self._halves, (a, b)):
            if features is None:
                continue
            if not halves:
                halves += [Moments(features.shape[1]) for _ in range(2)]
            # alternating, so that both halves cover an ordered set
            first = sum(half.count for half in halves) % 2
            halves[first].update(features[::2])
            halves[1 - first].update(features[1::2])

    def compute(self) -> Frechet:
        """The distance, with its bias by Richardson extrapolation from halves to wholes.

        A bias of c / n makes the distance between halves larger by c / n: that difference is the estimate.

        Raises:
            ValueError: a side has fewer than two features.
        """
        if not all(self._halves):
            raise ValueError("a Frechet distance needs features on both sides")
        a, b = (halves[0] + halves[1] for halves in self._halves)
        distance = frechet_distance(a, b)
        bias = math.nan
        if min(half.count for halves in self._halves for half in halves) >= 2:
            halved = [frechet_distance(x, y) for x, y in zip(*self._halves)]
            bias = sum(halved) / 2 - distance
        return Frechet(distance, bias, (a.count, b.count), len(a.mean))
