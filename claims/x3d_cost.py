"""Convolutions of single channels let X3D do with a fraction of SlowFast's multiply-adds and parameters."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, equal
from claims.textures import KINDS, SIZE, make, top1, top1_figures, trained
from claims.training import cost
from filmstrip import systems
from filmstrip.systems.recognition.slowfast import SlowFastConfig
from filmstrip.systems.recognition.x3d import X3DConfig

FRAMES, STEPS, TESTS = 8, 250, 400
LARGE = {"slowfast:r50_4x16_k400": 256, "x3d:m_k400": 256, "slowfast:r50_8x8_k400": 256, "x3d:l_k400": 356}
"""Crops at test time."""
TOP1 = {"slowfast:r50_4x16_k400": 75.6, "x3d:m_k400": 76.2, "slowfast:r50_8x8_k400": 77.0, "x3d:l_k400": 77.5}
"""Of the released weights, Kinetics-400."""
SLOWFAST = SlowFastConfig(
    stem_width=16, depths=(1, 1, 1, 1), speed_ratio=4, narrower=4, fusion_frames=5, num_classes=2 * KINDS
)
X3D = X3DConfig(width=8, deeper=1.0, bottleneck=2.25, hidden=64, num_classes=2 * KINDS)
SMALL = {"SlowFast": (SLOWFAST, 3e-3, 1), "X3D": (X3D, 2e-2, 2)}
"""Each with its learning rate, and by how much its steps are multiplied."""

CLAIM = Claim(
    systems=("recognition.x3d",),
    finding=__doc__.strip(),
    paper="Feichtenhofer 2020, Kinetics-400: as accurate as earlier networks with 4.8 times fewer multiply-adds and "
    "5.5 times fewer parameters. The released weights have (top-1) SlowFast 4 x 16 75.6 and 8 x 8 77.0, X3D-M 76.2 "
    "and L 77.5.",
    here="Both are counted at the paper's size, in the crops that networks are tested with. Small networks of each "
    "kind are trained on moving textures, SlowFast for 250 steps, X3D for 500; 400 unseen clips.",
    baseline="SlowFast.",
    figures={
        **{f"{name}, M": Figure(says=f"{name} ({TOP1[name]} released): M parameters", digits=2) for name in LARGE},
        **{f"{name}, G": Figure(says=f"{name}: G multiply-adds", digits=2) for name in LARGE},
        "M, fewer work": Figure(says="X3D-M against SlowFast 4 x 16: times fewer multiply-adds"),
        "M, fewer parameters": Figure(says="X3D-M against SlowFast 4 x 16: times fewer parameters"),
        "L, fewer work": Figure(says="X3D-L against SlowFast 8 x 8: times fewer multiply-adds", paper="4.8"),
        "L, fewer parameters": Figure(says="X3D-L against SlowFast 8 x 8: times fewer parameters", paper="5.5"),
        "small, fewer work": Figure(says="here: times fewer multiply-adds"),
        **{key: figure for name in SMALL for key, figure in top1_figures(name, f"small {name}").items()},
    },
    expected=(
        above("M, fewer work", 4.8, "X3D-M costs at least 4.8 times less"),
        above(
            "M, fewer parameters", 5.5, "and has 5.5 times fewer parameters, at a higher accuracy of released weights"
        ),
        above("X3D class", "SlowFast class", "small, it is as accurate, within 5 points", by=-5.0),
        equal("X3D texture", "SlowFast texture", "it knows textures as well, within 5 points", within=5.0),
    ),
    analysis="The costs are the paper's. The accuracy is not reached in so few steps: textures it knows as well, "
    "ways in one seed of three, though it has twice the steps and the best of three learning rates. All that it has "
    "of time are convolutions of single channels, in branches that start from nothing; the paper trains it for 256 "
    "epochs.",
    minutes=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    costs = {}
    for name, size in LARGE.items():
        run = systems.find(f"recognition.{name}")
        costs[name] = cost(run.objective, run.data.clip.num_frames, size)
    found = {f"{name}, M": parameters for name, (parameters, _) in costs.items()}
    found |= {f"{name}, G": work for name, (_, work) in costs.items()}
    pairs = (("M", "slowfast:r50_4x16_k400", "x3d:m_k400"), ("L", "slowfast:r50_8x8_k400", "x3d:l_k400"))
    for size, theirs, ours in pairs:
        found[f"{size}, fewer parameters"] = costs[theirs][0] / costs[ours][0]
        found[f"{size}, fewer work"] = costs[theirs][1] / costs[ours][1]
    found["small, fewer work"] = cost(SLOWFAST, FRAMES, SIZE)[1] / cost(X3D, FRAMES, SIZE)[1]
    test = make(TESTS, FRAMES, torch.Generator().manual_seed(1000 + seed))
    for name, (config, lr, longer) in SMALL.items():
        found |= top1(trained(config, FRAMES, steps=longer * STEPS, lr=lr, seed=seed), test, name)
    return found
