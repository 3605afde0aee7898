"""A Frechet distance of few samples is mostly sample size, and extrapolation takes most of that out."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, equal
from filmstrip.evals.frechet import Frechet, FrechetPair

WIDTH = 400
COUNTS = (256, 512, 1024, 2048, 4096)
RANK = torch.arange(1, WIDTH + 1, dtype=torch.float64)
SPECTRA = {"alike": torch.ones_like(RANK), "1 / rank": 1 / RANK}

CLAIM = Claim(
    systems=(),
    finding=__doc__.strip(),
    paper="Chong & Forsyth 2020: FID and inception score of n samples are biased by about c / n, with another c for "
    "each model, so that rankings depend on n; extrapolation to infinitely many samples takes the bias out.",
    here="Two samples of one Gaussian of 400 numbers (as many as the logits that FVD is computed with), whose true "
    "distance is zero, with variances that are all alike or fall as one over their rank, as features' do; the bias "
    "is estimated by Richardson's extrapolation from halves to wholes.",
    baseline="The distance as it is computed, without extrapolation: 100%.",
    figures={
        f"{spectrum}, {count}{what}": Figure(says=f"variances {spectrum}, {count} samples: {says}", digits=digits)
        for spectrum in SPECTRA
        for count in COUNTS
        for what, says, digits in (("", "distance (truth: 0)", 4), (", left", "left of it after extrapolation, %", 2))
    },
    expected=(
        *(
            above(
                f"{spectrum}, 256", f"{spectrum}, 4096", f"with variances {spectrum}, the distance falls with samples"
            )
            for spectrum in SPECTRA
        ),
        *(
            equal(
                f"{spectrum}, {count}, left",
                0.0,
                f"with variances {spectrum} and {count} samples, twice as many as numbers or more, little is left",
                within=5.0,
            )
            for spectrum in SPECTRA
            for count in COUNTS
            if count >= 2 * WIDTH
        ),
    ),
    seeds=5,
    minutes=0.2,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    figures = {}
    for name, spectrum in SPECTRA.items():
        for count in COUNTS:
            found = two_samples(count, spectrum, seed)
            figures[f"{name}, {count}"] = found.distance
            figures[f"{name}, {count}, left"] = 100 * (found.distance - found.bias) / found.distance
    return figures


def two_samples(count: int, spectrum: torch.Tensor, seed: int) -> Frechet:
    """The distance of two samples of one Gaussian with those variances."""
    generator = torch.Generator().manual_seed(seed)
    pair = FrechetPair()
    pair.update(*(torch.randn(2, count, WIDTH, generator=generator, dtype=torch.float64) * spectrum.sqrt()))
    return pair.compute()
