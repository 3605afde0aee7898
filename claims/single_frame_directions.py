"""What no single frame shows: eight ways of moving, of which every frame looks alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, equal
from claims.moving import clips, shifted
from claims.training import answers, learn, percent
from filmstrip.data.synthetic.motions import Motions
from filmstrip.systems.recognition import r2plus1d, single_frame, vit

STEPS, VIDEOS, TESTS = 300, 40, 75
DRAWN, STRIDE = Motions(num_frames=16, size=32, difficulty=0.0), 2
SMALL_VIT = replace(vit.tiny().objective, size=32, patch_size=(2, 4, 4), width=64, depth=3, num_heads=2)
NETWORKS = {
    "single_frame": (single_frame.tiny().objective, 3e-3),
    "r2plus1d": (r2plus1d.tiny().objective, 3e-3),
    "vit": (SMALL_VIT, 1e-3),
}
"""Each with its learning rate."""

CLAIM = Claim(
    systems=("recognition.single_frame", "recognition.r2plus1d", "recognition.vit"),
    finding=__doc__.strip(),
    paper="Karpathy et al. 2014, Sports-1M (top-5): a single frame is nearly as good as any fusion of frames, 77.7 "
    "against 76.8 to 80.2, because scenes give actions away.",
    here="On these motions scenes say nothing: a network of single frames must stay at chance, 12.5, and one that "
    "sees frames together must not. 300 steps on 40 plain videos of each of eight motions (8 frames of 32 x 32), "
    "shifted by chance around the torus that they live on; 600 unseen videos.",
    baseline="Chance, 12.5.",
    figures={name: Figure(says=f"{name}: top-1, %") for name in NETWORKS},
    expected=(
        equal("single_frame", 12.5, "a single frame stays at chance, within 5 points", within=5.0),
        above("r2plus1d", "single_frame", "R(2+1)D sees more than a single frame, by 10 points", by=10.0),
        above("vit", "single_frame", "and so does a ViT of cubes"),
    ),
    analysis="Motions are plain and small, and cubes 4 pixels wide, because at the default difficulty, 64 x 64 "
    "pixels and cubes of 8 the ViT stays at chance for hundreds of steps. How much R(2+1)D has learnt after 300 "
    "steps depends on the seed (32 to 54).",
    minutes=9.5,
    seeds=5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    train, (videos, labels) = (clips(count, (seed, i), DRAWN, STRIDE) for i, count in enumerate((VIDEOS, TESTS)))
    found = {}
    for name, (config, lr) in NETWORKS.items():
        torch.manual_seed(seed)
        network = learn(config.build(), shifted(*train, 16, seed), steps=STEPS, lr=lr)
        found[name] = percent(answers(network, videos), labels)
    return found
