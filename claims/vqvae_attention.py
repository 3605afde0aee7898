"""Axial attention in the VQ-VAE lowers its reconstruction error at equal parameters.

    python claims/vqvae_attention.py

Two tokenizers of the same size code the same videos into the same number of codes: one with axial attention in its
residual blocks, one with more convolutional blocks in its place. Numbers are squared errors on unseen videos over the
variance of their pixels. Paper: BAIR, 64 x 64 (Yan et al. 2021, the ablation of attention).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from filmstrip.data.reading.loader import eval_batches
from filmstrip.data.synthetic.motions import Motions
from filmstrip.inference import inference
from filmstrip.measure import complexity
from filmstrip.nn.quantise import usage
from filmstrip.protocols import as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.tokenizers import vqvae3d

PAPER = {"no attention": 0.0041, "with attention": 0.0033}
# residual blocks and heads; a block with attention has about as many parameters as two without
NETWORKS = {"no attention": {"depth": 4, "num_heads": 0}, "with attention": {"depth": 2, "num_heads": 2}}


def shared(args: argparse.Namespace, seed: int) -> Run:
    """The tiny preset on more videos, for a number of steps."""
    run = vqvae3d.tiny()
    data = replace(run.data, synthetic=Motions(train_per_class=args.videos, test_per_class=25))
    return replace(run, data=data, seed=seed, train=replace(run.train, steps=args.steps, log_every=50))


def score(result: experiment.Result) -> dict[str, float]:
    """Error on unseen videos over their variance, and perplexity and used share of the codebook."""
    videos, rebuilt, ids = [], [], []
    with inference(result.objective):
        for batch in eval_batches(result.source, result.run.data, result.run.data.eval_split):
            tokens = result.objective.encode(batch["video"])
            videos.append(as_float(batch["video"]))
            rebuilt.append(result.objective.decode(tokens))
            ids.append(tokens.ids)
    video = torch.cat(videos)
    nmse = (torch.cat(rebuilt) - video).square().mean() / video.var()
    codes = usage(torch.cat(ids).flatten(), result.objective.codebook_size)
    return {"nmse": nmse.item(), **{name: value.item() for name, value in codes.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--videos", type=int, default=100, help="training videos of each of the eight classes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, sizes in NETWORKS.items():
            errors = []
            for seed in range(args.seeds):
                run = shared(args, seed)
                run = replace(run, objective=replace(run.objective, **sizes))
                folder = (args.out or Path(temporary)) / f"{name.replace(' ', '-')}-{seed}"
                errors.append(score(experiment.train(run, folder))["nmse"])
            rows[name] = (complexity.of_run(run).parameters, sum(errors) / len(errors))
    print("\n| | paper, BAIR | here, motions | parameters |\n|---|---:|---:|---:|")
    for name, (parameters, error) in rows.items():
        print(f"| {name} | {PAPER[name]:.4f} | {error:.4f} | {parameters:,} |")
    (_, without), (_, attention) = rows.values()
    print(f"\nattention lowers the error: {attention < without} (paper: True); {attention / without:.2f} of it")


if __name__ == "__main__":
    main()
