"""What no single frame shows: eight ways of moving, of which every frame looks alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from claims.ledger import Claim, Figure, above, equal
from filmstrip.data.synthetic.motions import Motions
from filmstrip.runs import experiment
from filmstrip.systems.recognition import r2plus1d, single_frame, vit
from filmstrip.train.lengths import Steps

STEPS, VIDEOS, TESTS = 300, 100, 25
SYSTEMS = {"single_frame": single_frame, "r2plus1d": r2plus1d, "vit": vit}

CLAIM = Claim(
    systems=("recognition.single_frame", "recognition.r2plus1d", "recognition.vit"),
    finding=__doc__.strip(),
    paper="Karpathy et al. 2014, Sports-1M (top-5): a single frame is nearly as good as any fusion of frames, 77.7 "
    "against 76.8 to 80.2, because scenes give actions away.",
    here="On these motions scenes say nothing: a network of single frames must stay at chance, 12.5, and one that "
    "sees frames together must not. 300 steps on 100 videos of each of eight motions; 200 unseen videos.",
    baseline="Chance, 12.5.",
    figures={name: Figure(says=f"{name}: top-1, %") for name in SYSTEMS},
    expected=(
        equal("single_frame", 12.5, "a single frame stays at chance, within 5 points", within=5.0),
        above("r2plus1d", "single_frame", "R(2+1)D sees more than a single frame, by 10 points", by=10.0),
        above("vit", "single_frame", "and so does a ViT of cubes"),
    ),
    minutes=8,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for name, system in SYSTEMS.items():
        run = system.tiny()
        data = replace(run.data, synthetic=Motions(train_per_class=VIDEOS, test_per_class=TESTS))
        run = replace(run, data=data, train=replace(run.train, length=Steps(STEPS), log_every=50), seed=seed)
        found[name] = 100 * experiment.train(run, folder / name).metrics["top1"]
    return found
