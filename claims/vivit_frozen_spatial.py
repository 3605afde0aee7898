"""Freezing the frames' transformer of a factorised ViViT saves about half of a training step.

    python claims/vivit_frozen_spatial.py

The factorised encoder of 32 frames at 224 x 224 (width 384, 12 layers over space and 4 over time), trained whole,
and by the recipe of Gowda et al. 2023: frames frozen, an adapter between them and time. Seconds are medians of whole
steps (forward, backward, AdamW) that alternate in one process; memory is the peak of a process that takes one step,
less what it had before the network was built. Paper: about half of the training cost, at accuracies as good or
better; those need a transformer pretrained on images, which nothing here has, and are not re-run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from filmstrip.evals.throughput import count_flops, peak_memory
from filmstrip.systems.recognition.vivit import ViViTConfig

WHOLE = ViViTConfig(variant="factorised_encoder", width=384, num_heads=6)
NETWORKS = {"trained whole": WHOLE, "frames frozen": replace(WHOLE, frozen_frames=True)}


def stepper(name: str) -> tuple[Callable[[], None], int]:
    """A training step on one clip, and how many parameters it changes."""
    torch.manual_seed(0)
    config = NETWORKS[name]
    objective = config.build().train()
    video = torch.randint(0, 256, (1, config.num_frames, 3, config.size, config.size), dtype=torch.uint8)
    batch = {"video": video, "label": torch.zeros(1, dtype=torch.int64)}
    learning = [p for p in objective.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, fused=True)

    def step() -> None:
        objective(batch).total.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step, sum(p.numel() for p in learning)


def print_memory(name: str) -> None:
    with peak_memory(torch.device("cpu")) as peak:
        before = peak()
        stepper(name)[0]()
        print((peak() - before) / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=NETWORKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        return print_memory(args.memory_of)
    steps = {name: stepper(name) for name in NETWORKS}
    flops = {name: count_flops(step) for name, (step, _) in steps.items()}  # the round that is not timed, too
    seconds: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for _ in range(args.rounds):
        for name, (step, _) in steps.items():
            begin = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begin)
    print("\n| | parameters that learn, M | G multiply-adds of a step | seconds | GB |\n|---|---:|---:|---:|---:|")
    table = {}
    for name, (_, learning) in steps.items():
        command = [sys.executable, __file__, "--memory-of", name]
        memory = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        table[name] = (learning / 1e6, flops[name] / 2e9, statistics.median(seconds[name]), memory)
        print("| {} | {:.1f} | {:.0f} | {:.2f} | {:.2f} |".format(name, *table[name]))
    whole, frozen = table.values()
    saved = [1 - f / w for f, w in zip(frozen, whole)]
    print(f"\nfreezing saves {saved[2]:.0%} of the step (paper: about 50%) and {saved[3]:.0%} of its memory")
    print(f"saves at least 45% of the step: {saved[2] >= 0.45} (paper: True)")


if __name__ == "__main__":
    main()
