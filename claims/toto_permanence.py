"""With twice as many frames of a video a hidden ball is found more often."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above
from claims.training import answers, learn, percent, picked
from filmstrip.data.synthetic.cups import Cups, cell_of, last_seen
from filmstrip.systems import find
from filmstrip.systems.recognition.finetuned import Finetuned
from filmstrip.video.sampling import uniform

VIDEOS, TESTS = 300, 120
STEPS, BATCH, RATE = 250, 8, 1e-3
SIZE, PATCH = 48, 8
DRAWN = Cups(num_frames=40, size=SIZE, num_cups=2, num_others=1)
KINDS = (16, 32)

CLAIM = Claim(
    systems=("recognition.finetuned",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, CATER, Toto-large: 62.8 from 16 frames, 72.9 from 32 (V3D 55.2, 69.7).",
    here=f"Videos after CATER with two cups and one box, {DRAWN.num_frames} frames of {SIZE} x {SIZE} pixels; the "
    f"class is the ball's cell of 36 at the end. Toto's transformer on patches of {PATCH} pixels (64 wide, 3 deep), "
    f"without pretraining, learns from 16 or 32 frames spread over each of {VIDEOS} videos, {STEPS} steps of "
    f"{BATCH}; {TESTS} unseen ones.",
    baseline="16 frames; the cell where the ball was seen last.",
    figures={
        "16": Figure(says="16 frames: top-1, %", paper="62.8 (CATER)"),
        "32": Figure(says="32 frames: top-1, %", paper="72.9 (CATER)"),
        "seen": Figure(says="where the ball was seen last: top-1, %"),
        "most": Figure(says="the most frequent cell of the training videos: top-1, %"),
    },
    expected=(
        above("32", "16", "32 frames tell more than 16"),
        above("32", "most", "something is learnt"),
    ),
    minutes=9,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    videos, labels, _ = drawn(VIDEOS, (seed, 0))
    tests, expected, seen = drawn(TESTS, (seed, 1))
    most = labels.bincount(minlength=36).argmax()
    found = {"seen": percent(seen, expected), "most": percent(most.expand_as(expected), expected)}
    for frames in KINDS:
        chosen = torch.from_numpy(uniform(frames, 0, DRAWN.num_frames).astype(int))
        torch.manual_seed(seed)
        network = built(frames)
        learn(network, picked(videos[:, chosen], labels, BATCH, seed), steps=STEPS, lr=RATE, clip_grad=1.0)
        found[str(frames)] = percent(answers(network, tests[:, chosen]), expected)
    return found


def built(frames: int) -> Finetuned:
    """Toto's transformer on patches, and a classifier of 36 cells."""
    patches = find("pretraining.toto:tiny_patches").objective
    sizes = {"num_frames": frames, "size": SIZE, "patch_size": PATCH, "width": 64, "depth": 3}
    config = find("recognition.finetuned:tiny").objective
    return replace(config, learner=replace(patches, **sizes), num_classes=36).build()


def drawn(count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Videos ``N T 3 H W`` uint8, the ball's cells at their ends, and those where it was seen last."""
    videos, cells, seen = [], [], []
    for k in range(count):
        rng = np.random.default_rng((*seed, k))
        things = DRAWN.scene(rng)
        videos.append(DRAWN.render(things, rng))
        cells.append(cell_of(things[0], -1))
        seen.append(last_seen(things[0]))
    return torch.stack(videos), torch.tensor(cells), torch.tensor(seen)
