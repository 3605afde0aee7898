"""DropLoss cuts TECO's training step by 40% or more at 300 frames.

    python claims/teco_droploss.py

TECO with the shape of its DMLab preset, an eighth as wide, trains on 300 frames of 16 x 16 codes with a loss of
every frame, and of a tenth of them, in turns. Numbers are medians of whole steps: forward, backward, optimiser. The
paper's are of 16 frames of Something-Something V2 on TPUs (Yan et al. 2023, table B.1a), dropping 0.8.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch

from filmstrip.systems.generation import teco

PAPER = {0.0: 182, 0.8: 125}
SMALL = dict(
    encoder_widths=(32, 64),
    decoder_widths=(32, 64),
    width=128,
    prior_width=64,
    prior_code_width=32,
    num_heads=4,
    prior_num_heads=2,
)


def step(objective: teco.TECO, optimiser: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    """Seconds of one optimiser step."""
    start = time.perf_counter()
    objective(batch).total.backward()
    optimiser.step()
    optimiser.zero_grad()
    if batch["tokens"].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="the preset's own widths")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = replace(teco.dmlab().objective, num_frames=args.frames, **({} if args.full else SMALL))
    torch.manual_seed(0)
    batch = {
        "tokens": torch.randint(1024, (args.clips, args.frames * 256)),
        "action": torch.randint(3, (args.clips, args.frames)),
        "seed": torch.arange(args.clips),
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    rates, times = (0.0, 0.8, 0.9), {}
    models = {rate: replace(config, drop_loss=rate).build().to(device) for rate in rates}
    trained = {rate: [p for p in m.parameters() if p.requires_grad] for rate, m in models.items()}
    optimisers = {rate: torch.optim.AdamW(params, lr=1e-4) for rate, params in trained.items()}
    for i in range(args.repeats + 1):
        for rate in rates:
            seconds = step(models[rate], optimisers[rate], batch)
            times.setdefault(rate, []).extend([seconds] if i else [])  # the first ones warm up
    here = {rate: 1000 * median(seconds) for rate, seconds in times.items()}
    print(f"\n| dropped | paper, 16 frames: ms | here, {args.frames} frames on {device}: ms |\n|---:|---:|---:|")
    for rate in rates:
        print(f"| {rate} | {PAPER.get(rate, '')} | {here[rate]:.0f} |")
    saved, paper = 1 - here[0.9] / here[0.0], 1 - PAPER[0.8] / PAPER[0.0]
    print(f"\na step is {100 * saved:.0f}% shorter (paper: {100 * paper:.0f}% at 0.8, 'up to 60%')")
    print(f"DropLoss cuts the step by 40% or more: {saved >= 0.4}")


if __name__ == "__main__":
    main()
