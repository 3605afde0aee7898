"""The small VQ-VAE that claims about codebooks train, and how its codes and what it rebuilds are measured."""

from __future__ import annotations

from dataclasses import replace

import torch

from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.synthetic.motions import Motions
from filmstrip.inference import inference
from filmstrip.nn.quantise import usage
from filmstrip.protocols import as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.tokenizers import vqvae3d
from filmstrip.train.lengths import Steps

VIDEOS, TESTS = 50, 15
"""Of each of the eight motions."""


def shared(steps: int, seed: int) -> Run:
    """The tiny preset, narrower, on more videos, for a number of steps."""
    run = vqvae3d.tiny()
    videos = Motions(train_per_class=VIDEOS, test_per_class=TESTS, num_frames=16, size=32)
    return replace(
        run,
        data=replace(run.data, synthetic=videos, batch_size=8),
        objective=replace(run.objective, width=36, residual_width=18),
        seed=seed,
        train=replace(run.train, length=Steps(steps), log_every=50),
    )


def score(result: experiment.Result) -> dict[str, float]:
    """Error on unseen videos over their variance, and perplexity and used share of the codebook."""
    videos, rebuilt, ids = [], [], []
    with inference(result.objective):
        for batch in EvalLoader(result.source, result.run.data, result.run.data.eval_split):
            tokens = result.objective.encode(batch["video"])
            videos.append(as_float(batch["video"]))
            rebuilt.append(result.objective.decode(tokens))
            ids.append(tokens.ids)
    video = torch.cat(videos)
    nmse = (torch.cat(rebuilt) - video).square().mean() / video.var()
    codes = usage(torch.cat(ids).flatten(), result.objective.codebook_size)
    return {"nmse": nmse.item(), **{name: value.item() for name, value in codes.items()}}
