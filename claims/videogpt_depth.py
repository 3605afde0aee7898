"""A deeper prior models the codes of video better: bits for each code fall with the number of layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from claims.ledger import Claim, Figure, below
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.likelihood import Likelihood
from filmstrip.objectives.latent import LatentObjective
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.generation import videogpt
from filmstrip.systems.tokenizers import vqvae3d
from filmstrip.train.lengths import Steps

TOKENIZER_STEPS, STEPS, VIDEOS, TESTS = 200, 300, 100, 25
FRAMES = 4
DEPTHS = {1: "2.84 (2 layers)", 2: "2.52 (4)", 4: "2.39 (8)"}

CLAIM = Claim(
    systems=("generation.videogpt",),
    finding=__doc__.strip(),
    paper="Yan et al. 2021 (table 2.4 of the thesis), BAIR: 2.84, 2.52, 2.39 and 2.05 bits/dim with 2, 4, 8 and 16 "
    "layers.",
    here="One tokenizer of plain moving shapes (2 x 8 x 8 codes of 64), and VideoGPTs of 1 to 4 layers over its "
    "codes, all as wide and trained for 300 steps. Bits for each code of 200 unseen videos; each place alone is what "
    "a table of how often each code occurs at each place would need: priors of textured motions stay there for "
    "hundreds of steps, some longer than others, which hides what depth does.",
    baseline="Half as many layers.",
    figures={
        **{
            f"{depth} layers": Figure(says=f"{depth} layer{'s' * (depth > 1)}: bits a code", paper=paper, digits=3)
            for depth, paper in DEPTHS.items()
        },
        "alone": Figure(says="each place alone: bits a code", digits=3),
    },
    expected=(
        below("2 layers", "1 layers", "two layers need fewer bits than one"),
        below("4 layers", "2 layers", "four fewer than two"),
        below("1 layers", "alone", "one layer has learnt more than each place alone"),
    ),
    minutes=5.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    tokenizer = vqvae3d.tiny()
    tokenizer = replace(tokenizer, objective=replace(tokenizer.objective, num_frames=FRAMES))
    trained(tokenizer, folder / "tokenizer", TOKENIZER_STEPS, seed)
    found = {}
    for depth in DEPTHS:
        run = videogpt.tiny()
        run = replace(run, optim=replace(run.optim, lr=2e-3))
        objective = replace(
            run.objective,
            tokenizer=tokenizer.objective,
            tokenizer_run=str(folder / "tokenizer"),
            num_frames=FRAMES,
            depth=depth,
            conditions=(),
        )
        result = trained(replace(run, objective=objective), folder / f"depth-{depth}", STEPS, seed)
        metrics = {name.split("/")[0]: value for name, value in Likelihood()(result.subject)}
        found[f"{depth} layers"] = metrics["bits_per_dim"]
    return found | {"alone": alone(result)}


def trained(run: Run, folder: Path, steps: int, seed: int) -> experiment.Result:
    """The run on plain moving shapes, for a number of steps."""
    shapes = Motions(
        train_per_class=VIDEOS,
        test_per_class=TESTS,
        num_frames=8,
        size=32,
        difficulty=0.0,
        num_shapes=2,
        plain=True,
    )
    data = replace(run.data, synthetic=shapes, clip=replace(run.data.clip, num_frames=FRAMES))
    train = replace(run.train, length=Steps(steps), log_every=50)
    return experiment.train(replace(run, data=data, train=train, seed=seed), folder)


def codes_of(result: experiment.Result, split: str) -> torch.Tensor:
    """The codes of one clip of each video, ``N P``."""
    prior: LatentObjective = result.objective
    return torch.cat([prior.codes(batch).ids for batch in EvalLoader(result.source, result.run.data, split)])


def alone(result: experiment.Result) -> float:
    """Bits for a code of unseen videos where each place has a distribution of its own, learnt by counting."""
    size = result.objective.codebook_size
    seen, unseen = (codes_of(result, split) for split in (result.run.data.train_split, result.run.data.eval_split))
    share = F.one_hot(seen, size).double().add(1 / size).mean(dim=0)
    return -(share / share.sum(dim=1, keepdim=True)).log2().gather(1, unseen.T).mean().item()
