"""Predicting features without labels makes better frozen features than predicting pixels, or than no training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above
from filmstrip.data.config import Data
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.protocols import Objective
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.evaluation import Subject
from filmstrip.systems.pretraining import videomae, vjepa
from filmstrip.train.lengths import Steps

STEPS, VIDEOS, LABELLED, TESTS, BATCH = 400, 100, 10, 25, 16

CLAIM = Claim(
    systems=("pretraining.vjepa",),
    finding=__doc__.strip(),
    paper="Bardes et al. 2024: with a frozen encoder, predicting features is superior to predicting pixels, the more "
    "so the fewer labels there are.",
    here="V-JEPA and VideoMAE, encoders of one width and depth, see all 800 training videos of motions for 400 steps "
    "of 16 clips, without labels. A linear probe of the best of four layers is fitted to 10 labelled videos a class. "
    "200 unseen videos, chance 12.5.",
    baseline="The encoder with random weights; VideoMAE's after as many steps.",
    figures={
        "random": Figure(says="random weights, linear probe: top-1, %"),
        "pixels": Figure(says="VideoMAE, linear probe: top-1, %"),
        "features": Figure(says="V-JEPA, linear probe: top-1, %"),
        "target_std": Figure(says="standard deviation of V-JEPA's targets at the end (0 is a collapse)", digits=2),
    },
    expected=(
        above("features", "random", "predicting features beats random weights"),
        above("features", "pixels", "predicting features beats predicting pixels"),
        above("target_std", 0.2, "the teacher has not collapsed"),
    ),
    minutes=10,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    features = shared(vjepa.tiny(), seed)
    features = replace(features, objective=replace(features.objective, momentum_steps=STEPS))
    torch.manual_seed(seed)
    untrained = features.objective.build()
    result = experiment.train(features, folder / "features")
    pixels = experiment.train(shared(videomae.tiny(), seed), folder / "pixels")
    return {
        "random": probed(untrained, features.data),
        "pixels": probed(pixels.objective, features.data),
        "features": probed(result.objective, features.data),
        "target_std": json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[-1])["target_std"],
    }


def shared(run: Run, seed: int) -> Run:
    """A tiny preset on more videos, for so many steps, without its own evaluations."""
    data = replace(run.data, synthetic=Motions(train_per_class=VIDEOS, test_per_class=TESTS), batch_size=BATCH)
    train = replace(run.train, length=Steps(STEPS), log_every=50)
    return replace(run, data=data, seed=seed, train=train, evals=())


def probed(objective: Objective, data: Data) -> float:
    """Top-1 of a linear probe of the best layer, fitted to the few labelled videos."""
    few = replace(data, synthetic=Motions(train_per_class=LABELLED, test_per_class=TESTS))
    subject = Subject(objective=objective, source=open_source(few), data=few, device=torch.device("cpu"))
    return 100 * dict(LinearProbe()(subject))["linear/best_top1"]
