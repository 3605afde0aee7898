"""Divided attention over time and space costs less than joint attention at equal accuracy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, below
from claims.moving import clips, shifted
from claims.training import answers, cost, learn, percent
from filmstrip.data.synthetic.motions import Motions
from filmstrip.measure import complexity
from filmstrip.runs.config import Run
from filmstrip.systems.recognition import timesformer

STEPS, VIDEOS, TESTS = 400, 40, 50
FRAMES, SIZE, STRIDE = 4, 32, 4
DRAWN = Motions(num_frames=FRAMES * STRIDE, size=SIZE, difficulty=0.0)
KINDS = ("divided", "joint")
SMALL = replace(timesformer.tiny().objective, width=48, num_frames=FRAMES, size=SIZE, patch_size=4)
"""Of its 4 x 64 tokens joint attention costs more than divided attention."""
LARGE = {
    "8 x 224": timesformer.base_k400,
    "16 x 448 (HR)": timesformer.hr_k400,
    "96 x 224 (L)": timesformer.large_k400,
}

CLAIM = Claim(
    systems=("recognition.timesformer",),
    finding=__doc__.strip(),
    paper="Bertasius et al. 2021, Kinetics-400: divided attention is as accurate as joint attention, which is not "
    "run on the larger clips, for want of memory; 196, 1703 and 2380 G multiply-adds a view in the lecture's tables.",
    here="Two networks of the same width and depth learn the same plain motions (4 frames of 32 x 32, patches of 4 "
    "pixels), 40 videos of each of eight, shifted by chance around the torus that they live on, in 400 steps; 400 "
    "unseen videos, chance 12.5. Multiply-adds of one clip are counted, here and for the paper's "
    "networks, whose tokens grow in number.",
    baseline="Joint attention: from every token to every other.",
    figures={
        **{kind: Figure(says=f"{kind} attention: top-1, %") for kind in KINDS},
        **{f"{kind}, here": Figure(says=f"{kind}, 4 x 32 pixels, here: G multiply-adds", digits=3) for kind in KINDS},
        **{
            f"{kind}, {size}": Figure(says=f"{kind}, {size}: G multiply-adds", digits=0)
            for size in LARGE
            for kind in KINDS
        },
    },
    expected=(
        above("divided", "joint", "divided attention is at least as accurate, within 2 points", by=-2.0),
        above("joint", 25.0, "joint attention has learnt, so that the two can be compared"),
        below("divided, here", "joint, here", "divided attention costs less here"),
        below("divided, 16 x 448 (HR)", "joint, 16 x 448 (HR)", "and on the paper's larger frames"),
        below("divided, 96 x 224 (L)", "joint, 96 x 224 (L)", "and on its longer clips"),
    ),
    analysis="The costs are the paper's. Accuracies cannot be compared yet: within 400 steps joint attention "
    "of frames' patches has learnt nothing, and divided attention has only begun to, which the paper does not "
    "claim either. With patches that span two frames joint attention does learn these motions "
    "([single_frame_directions](#single_frame_directions)).",
    minutes=4,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    train, (videos, labels) = (clips(count, (seed, i), DRAWN, STRIDE) for i, count in enumerate((VIDEOS, TESTS)))
    found = {}
    for kind in KINDS:
        config = replace(SMALL, attention=kind)
        torch.manual_seed(seed)
        network = learn(config.build(), shifted(*train, 16, seed), steps=STEPS, lr=1e-3)
        found[kind] = percent(answers(network, videos), labels)
        found[f"{kind}, here"] = cost(config, FRAMES, SIZE)[1]
        for size, preset in LARGE.items():
            found[f"{kind}, {size}"] = giga(attending(preset(), kind))
    return found


def attending(run: Run, kind: str) -> Run:
    """The run with another attention."""
    return replace(run, objective=replace(run.objective, attention=kind))


def giga(run: Run) -> float:
    """G multiply-adds of encoding one clip."""
    return complexity.of_run(run).encoder_multiply_adds / 1e9
