"""VEDIT's unrolled training step: time, memory with and without recomputation, and what sharing saves.

    python bench/vedit.py                   # VEDIT-Tiny of width 1280, 24 steps, a window of 9 clips x 16 tokens
    python bench/vedit.py --steps 2 --rounds 1

A training step is a forward and a backward pass through all denoising steps, guided, and AdamW's update, in float32.
"Nothing shared" is the same mathematics done step by step: the norms' shifts and scales and the embedded clips again
in every pass, and the seen branch run on empty clips where there is no condition. The floor is the floating-point
operations of the matrix products over what one large product does in the same time; what is computed a second time in
the backward pass counts as work. Memory is the peak resident set over two training steps in a process of its own,
less what it had before the model was built.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from filmstrip import systems
from filmstrip.evals.throughput import count_flops, matrix_rate
from filmstrip.nn.sampling import guided
from filmstrip.nn.two_branch import Placement
from filmstrip.systems.procedures.vedit import AtTime, ClipDenoiser
from timing import alternate, peak_of

PLACES, TOKENS, WIDTH = 9, 16, 1152
WAYS = ("kept", "recomputed", "nothing shared")


class Unshared(ClipDenoiser):
    """Takes no advantage of what does not change."""

    def forward(self, noise: Tensor, seen: Tensor, placement: Placement) -> Tensor:
        self.clips, self.levels_left = seen, list(self.levels[:-1])
        return super().forward(noise, seen, placement)

    def velocity(self, clips: Tensor, seen: Tensor | None, time: AtTime, placement: Placement) -> Tensor:
        now = torch.tensor([1000 * self.levels_left.pop(0)])
        given, nothing = (
            self.network(clips, self.network.embed(shown), self.network.at_times(now)[0], placement).float()
            for shown in (self.clips, torch.zeros_like(self.clips))
        )
        return guided(given, nothing, self.guidance)


def window() -> dict[str, Tensor]:
    features = torch.randn(1, PLACES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(1, PLACES, dtype=torch.bool)
    target[:, -1] = True
    return {
        "features": features * ~target[..., None, None],
        "seen": ~target,
        "target": target,
        "step": torch.zeros(1, PLACES, dtype=torch.int64),
        "seed": torch.zeros(1, dtype=torch.int64),
    }


def stepper(way: str, steps: int) -> Callable[[], None]:
    config = systems.find("procedures.vedit:coin_forecast_tiny_1280").objective
    objective = replace(config, denoising_steps=steps, recompute=way == "recomputed").build().train()
    if way == "nothing shared":
        objective.predictor.__class__ = Unshared
    optimiser, batch = torch.optim.AdamW(objective.parameters(), fused=True), window()

    def step() -> None:
        objective(batch).total.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def print_memory(way: str, steps: int) -> None:
    def built_and_stepped() -> None:
        step = stepper(way, steps)
        for _ in range(2):
            step()

    print(peak_of(built_and_stepped) / 1e9)


def memory(way: str, steps: int) -> float:
    """Peak gigabytes of a process that trains this way."""
    command = [sys.executable, __file__, "--steps", str(steps), "--memory-of", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        return print_memory(args.memory_of, args.steps)
    peaks = {way: memory(way, args.steps) for way in WAYS}
    ways = {way: stepper(way, args.steps) for way in WAYS}
    flops = {way: count_flops(step) for way, step in ways.items()}
    seconds, rate = alternate(ways, args.rounds), matrix_rate(torch.float32)
    print(f"| {args.steps} denoising steps | s | speed, recomputed = 1 | GFLOP | GB | achieved over floor |")
    print("|---|---:|---:|---:|---:|---:|")
    for way in WAYS:
        share = flops[way] / seconds[way] / rate
        speed = seconds["recomputed"] / seconds[way]
        print(
            f"| {way} | {seconds[way]:.2f} | {speed:.2f} | {flops[way] / 1e9:.0f} | {peaks[way]:.2f} | {share:.0%} |"
        )


if __name__ == "__main__":
    main()
