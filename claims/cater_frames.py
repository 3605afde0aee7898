"""With twice as many frames of a video a hidden ball is found more often."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above
from claims.training import answers, learn, percent, picked
from filmstrip.data.synthetic.cups import SIDE, Cups, cell_of, last_seen
from filmstrip.systems import find
from filmstrip.video.sampling import uniform

VIDEOS, TESTS = 1000, 300
STEPS, BATCH, RATE = 600, 16, 2e-3
SIZE, GRID = 32, 3
DRAWN = Cups(num_frames=40, size=SIZE, num_cups=2, num_others=0)
KINDS = (16, 32)

CLAIM = Claim(
    systems=("recognition.c3d",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, CATER's 36 cells, Toto-large: 62.8 from 16 frames, 72.9 from 32; V3D, of 3D "
    "convolutions, 55.2 and 69.7.",
    here=f"Videos after CATER with two cups, {DRAWN.num_frames} frames of {SIZE} x {SIZE} pixels; the class is the "
    f"part of the ground, of {GRID} x {GRID}, in which the ball is at the end. A small C3D learns from 16 or 32 "
    f"frames spread over each of {VIDEOS} videos, {STEPS} steps of {BATCH}; {TESTS} unseen ones.",
    baseline="16 frames; the part where the ball was seen last.",
    figures={
        "16": Figure(says="16 frames: top-1, %", paper="62.8, 55.2 (CATER)"),
        "32": Figure(says="32 frames: top-1, %", paper="72.9, 69.7 (CATER)"),
        "16 moved": Figure(says="16 frames, balls that are not where they were seen last: top-1, %"),
        "32 moved": Figure(says="32 frames, balls that are not where they were seen last: top-1, %"),
        "seen": Figure(says="where the ball was seen last: top-1, %"),
        "most": Figure(says="the most frequent part of the training videos: top-1, %"),
    },
    expected=(
        above("32", "16", "32 frames tell more than 16"),
        above("32 moved", "16 moved", "they tell more of balls that a cup carried away"),
        above("16", "most", "16 frames tell something", by=20.0),
    ),
    analysis="The main direction holds over five seeds, by half of the paper's distance: with 16 frames, 1.6 for "
    "each time in which things act, as in CATER, a carried ball is found nearly as often. Parts of a 3 x 3 grid "
    "take the place of CATER's 36 cells, which this network does not learn from 1,000 videos (23% after as many "
    "steps), and C3D that of Toto: transformers on patches, Toto's and a ViT, learned nothing from scratch in 300 "
    "to 400 steps (9.5 to 17.0% on one seed, where chance is 10.5), and Toto's pretraining on so many videos does "
    "not fit in minutes.",
    seeds=5,
    minutes=8.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    videos, labels, _ = drawn(VIDEOS, (seed, 0))
    tests, expected, seen = drawn(TESTS, (seed, 1))
    moved = seen != expected
    most = labels.bincount(minlength=GRID**2).argmax()
    found = {"seen": percent(seen, expected), "most": percent(most.expand_as(expected), expected)}
    for frames in KINDS:
        chosen = torch.from_numpy(uniform(frames, 0, DRAWN.num_frames).astype(int))
        torch.manual_seed(seed)
        network = replace(
            find("recognition.c3d:tiny").objective, num_classes=GRID**2, num_frames=frames, size=SIZE
        ).build()
        learn(network, picked(videos[:, chosen], labels, BATCH, seed), steps=STEPS, lr=RATE, clip_grad=1.0)
        named = answers(network, tests[:, chosen])
        found[f"{frames}"] = percent(named, expected)
        found[f"{frames} moved"] = percent(named[moved], expected[moved])
    return found


def drawn(count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Videos ``N T 3 H W`` uint8, the ball's part of the ground at their ends, and the one where it was seen last."""
    videos, parts, seen = [], [], []
    for k in range(count):
        rng = np.random.default_rng((*seed, k))
        things = DRAWN.scene(rng)
        videos.append(DRAWN.render(things, rng))
        parts.append(part_of(cell_of(things[0], -1)))
        seen.append(part_of(last_seen(things[0])))
    return torch.stack(videos), torch.tensor(parts), torch.tensor(seen)


def part_of(cell: int) -> int:
    """The part of the ground in which one of CATER's cells lies."""
    row, column = divmod(cell, SIDE)
    return row * GRID // SIDE * GRID + column * GRID // SIDE
