"""Freezing the frames' transformer of a factorised ViViT saves about half of a training step."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, below
from filmstrip.evals.throughput import count_flops
from filmstrip.measure.memory import peak_memory
from filmstrip.systems.recognition import vivit

ROUNDS = 3
WHOLE = replace(vivit.ENCODER, width=384, num_heads=6, size=112)
NETWORKS = {"whole": WHOLE, "frozen": replace(WHOLE, frozen_frames=True)}
SAYS = {"whole": "trained whole", "frozen": "frames frozen"}

CLAIM = Claim(
    systems=("recognition.vivit",),
    finding=__doc__.strip(),
    paper="Gowda et al. 2023 (abstract): about half of the training cost, at accuracies as good or better.",
    here="The factorised encoder of 32 frames at 112 x 112 (width 384, 12 layers over space and 4 over time): whole "
    "steps (forward, backward, AdamW) on one clip, in turns, in processor time, which other work on the machine "
    "hardly changes; medians of three. Memory is the peak of a process that takes one step, "
    "less what it had before the network was built. Accuracies need a transformer pretrained on images and are not "
    "re-run.",
    baseline="The same network, trained whole.",
    figures={
        **{f"{name}, learning": Figure(says=f"{says}: M parameters that learn") for name, says in SAYS.items()},
        **{f"{name}, G": Figure(says=f"{says}: G multiply-adds of a step", digits=0) for name, says in SAYS.items()},
        **{
            f"{name}, seconds": Figure(says=f"{says}: seconds of processor time a step", digits=2)
            for name, says in SAYS.items()
        },
        **{f"{name}, GB": Figure(says=f"{says}: GB", digits=2) for name, says in SAYS.items()},
        "saved": Figure(says="of a step saved, %", paper="about 50"),
        "memory saved": Figure(says="of memory saved, %"),
    },
    expected=(
        above("saved", 45.0, "freezing saves at least 45% of a step's work"),
        below("frozen, GB", "whole, GB", "and memory"),
    ),
    minutes=1.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    steps = {name: stepper(name, seed) for name in NETWORKS}
    flops = {name: count_flops(step) for name, (step, _) in steps.items()}  # the round that is not timed, too
    seconds: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for _ in range(ROUNDS):
        for name, (step, _) in steps.items():
            begin = time.process_time()
            step()
            seconds[name].append(time.process_time() - begin)
    found = {}
    for name, (_, learning) in steps.items():
        found[f"{name}, learning"] = learning / 1e6
        found[f"{name}, G"] = flops[name] / 2e9
        found[f"{name}, seconds"] = statistics.median(seconds[name])
        found[f"{name}, GB"] = memory_of(name)
    found["saved"] = 100 * (1 - found["frozen, seconds"] / found["whole, seconds"])
    return found | {"memory saved": 100 * (1 - found["frozen, GB"] / found["whole, GB"])}


def stepper(name: str, seed: int) -> tuple[Callable[[], None], int]:
    """A training step on one clip, and how many parameters it changes."""
    torch.manual_seed(seed)
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


def memory_of(name: str) -> float:
    """GB of a process that takes one step, which is this file run as a script."""
    command = [sys.executable, "-m", "claims.vivit_frozen_spatial", name]
    root = Path(__file__).parents[1]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout.split()[-1])


if __name__ == "__main__":
    with peak_memory(torch.device("cpu")) as peak:
        before = peak()
        stepper(sys.argv[1], 0)[0]()
        print((peak() - before) / 1e9)
