"""Annealing the temperature closes the gap between the relaxed codes that train a dVAE and those that it gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from claims.codes import TESTS, VIDEOS, score
from claims.ledger import Claim, Figure, below
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.synthetic.motions import Motions
from filmstrip.inference import inference
from filmstrip.protocols import as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.tokenizers import dvae
from filmstrip.train.lengths import Steps

STEPS, CODES = 300, 64
BOOKS = {"annealed": "temperature 1 to 1/16", "warm": "temperature 1"}

CLAIM = Claim(
    systems=("tokenizers.dvae",),
    finding=__doc__.strip(),
    paper="Ramesh et al. 2021 found a final temperature of 1/16 enough to close the gap; no figure is given.",
    here="While it learns, a dVAE's decoder sees mixtures of codes; used as a tokenizer, single codes. One "
    "network of 64 codes is trained for 300 steps on textured motions, with a temperature that falls from 1 to "
    "1/16, and with one that stays at 1. The gap is the error of single codes over that of relaxed ones, less 1, "
    "on 120 unseen videos.",
    baseline="A temperature that stays at 1.",
    figures={
        key: figure
        for name, says in BOOKS.items()
        for key, figure in (
            (f"{name}, relaxed", Figure(says=f"{says}: error over variance, relaxed", digits=3)),
            (f"{name}, single", Figure(says=f"{says}: error over variance, single codes", digits=3)),
            (f"{name}, gap", Figure(says=f"{says}: gap, %")),
            (f"{name}, used", Figure(says=f"{says}: codes used, %")),
        )
    },
    expected=(
        below("annealed, gap", "warm, gap", "annealing leaves less of a gap than a constant temperature"),
        below("annealed, gap", 5.0, "it closes the gap, to less than 5%"),
    ),
    analysis="Annealed, the gap is below 5% in each seed; at a constant temperature it is 14 to 25%. Little is "
    "learnt in 300 steps, and few codes are in use, which makes the gap itself noisy: an interval from three seeds "
    "still reached beyond 5%.",
    minutes=7.5,
    seeds=5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for name in BOOKS:
        result = experiment.train(run_of(name, seed), folder / name)
        relaxed, row = relaxed_error(result), score(result)
        found |= {f"{name}, relaxed": relaxed, f"{name}, single": row["nmse"]}
        found |= {f"{name}, gap": 100 * (row["nmse"] / relaxed - 1), f"{name}, used": 100 * row["used"]}
    return found


def run_of(name: str, seed: int) -> Run:
    """The tiny preset with a larger codebook, on more videos."""
    run = dvae.tiny()
    steps = STEPS * 3 // 4 if name == "annealed" else 1_000_000
    book = replace(run.objective.codebook, size=CODES, warmup_steps=STEPS // 10, anneal_steps=steps)
    videos = Motions(train_per_class=VIDEOS, test_per_class=TESTS, num_frames=9, size=32)
    return replace(
        run,
        data=replace(run.data, synthetic=videos),
        objective=replace(run.objective, codebook=book),
        train=replace(run.train, length=Steps(STEPS), log_every=50),
        seed=seed,
    )


def relaxed_error(result: experiment.Result) -> float:
    """The error over the variance where the decoder sees what it saw in training."""
    objective, videos, rebuilt = result.objective, [], []
    torch.manual_seed(0)
    with inference(objective):
        objective.bottleneck.train()
        for batch in EvalLoader(result.source, result.run.data, result.run.data.eval_split):
            video = as_float(batch["video"])
            videos.append(video)
            rebuilt.append(objective.pixels(objective.pass_through(video)[0].float()))
        objective.bottleneck.eval()
    video = torch.cat(videos)
    return ((torch.cat(rebuilt) - video).square().mean() / video.var()).item()
