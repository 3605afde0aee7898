"""A Frechet distance of few samples is mostly sample size, and extrapolation takes most of that out.

    python claims/fvd_bias.py

Two samples of one Gaussian are compared: their true distance is zero. Once all of its 400 numbers (as many as the
logits that FVD is computed with) vary alike, once their variances fall as one over their rank, as features' do.
Chong & Forsyth (2020) found that FID and the inception score of finite samples are biased by about c / n, with
another c for each model, so that rankings depend on n. The estimate here is Richardson's extrapolation from halves to
wholes.
"""

from __future__ import annotations

import argparse

import torch

from filmstrip.evals.frechet import Frechet, FrechetPair

WIDTH = 400


def two_samples(count: int, spectrum: torch.Tensor, seed: int) -> Frechet:
    generator = torch.Generator().manual_seed(seed)
    pair = FrechetPair()
    pair.update(*(torch.randn(2, count, WIDTH, generator=generator, dtype=torch.float64) * spectrum.sqrt()))
    return pair.compute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    args = parser.parse_args()
    rank = torch.arange(1, WIDTH + 1, dtype=torch.float64)
    left = {}
    for name, spectrum in (("alike", torch.ones_like(rank)), ("1 / rank", 1 / rank)):
        print(f"\n| variances {name}: samples | distance | of it bias, estimated | left (truth: 0) | left, share |")
        print("|---:|---:|---:|---:|---:|")
        for count in args.counts:
            found = [two_samples(count, spectrum, seed) for seed in range(args.repeats)]
            distance, bias = (sum(getattr(f, k) for f in found) / len(found) for k in ("distance", "bias"))
            left[name, count] = (distance - bias) / distance
            print(f"| {count} | {distance:.4g} | {bias:.4g} | {distance - bias:.3g} | {left[name, count]:.1%} |")
    enough = [share for (_, count), share in left.items() if count >= 2 * WIDTH]
    print(f"\nfrom twice as many samples as numbers on, less than 5% is left: {all(abs(s) < 0.05 for s in enough)}")


if __name__ == "__main__":
    main()
