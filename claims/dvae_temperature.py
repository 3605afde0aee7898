"""Annealing the temperature closes the gap between the relaxed codes that train a dVAE and the codes that it gives.

    python claims/dvae_temperature.py

While it learns, a dVAE's decoder sees mixtures of codes; used as a tokenizer, single codes. One network is trained
with a temperature that falls from 1 to 1/16, with one that stays at 1, and with codes that are looked up
(straight-through gradients, no restarts, no divergence from uniform codes) in the Gumbel-softmax's place. Numbers are
on unseen videos: the error over the variance with relaxed and with single codes, and the codebook's use. Ramesh et
al. 2021 found 1/16 enough to close the gap.
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
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import as_float
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.tokenizers import dvae
from vqvae_attention import score

ANNEALED, WARM, LOOKED_UP = "temperature 1 to 1/16", "temperature 1", "straight-through"


def run_of(args: argparse.Namespace, name: str) -> Run:
    """The tiny preset with a larger codebook, on more videos."""
    run = dvae.tiny()
    if name == LOOKED_UP:
        book = Codebook(kind="learnt", size=args.codes, dim=16)
    else:
        steps = args.steps * 3 // 4 if name == ANNEALED else 1_000_000
        book = replace(run.objective.codebook, size=args.codes, warmup_steps=args.steps // 10, anneal_steps=steps)
    return replace(
        run,
        data=replace(
            run.data, synthetic=Motions(train_per_class=args.videos, test_per_class=25, num_frames=9, size=32)
        ),
        objective=replace(run.objective, codebook=book),
        train=replace(run.train, steps=args.steps, log_every=50),
    )


def relaxed_error(result: experiment.Result) -> float:
    """The error over the variance where the decoder sees what it saw in training."""
    objective, videos, rebuilt = result.objective, [], []
    torch.manual_seed(0)
    with inference(objective):
        objective.bottleneck.train()
        for batch in eval_batches(result.source, result.run.data, result.run.data.eval_split):
            video = as_float(batch["video"])
            videos.append(video)
            rebuilt.append(objective.pixels(objective.pass_through(video)[0].float()))
        objective.bottleneck.eval()
    video = torch.cat(videos)
    return ((torch.cat(rebuilt) - video).square().mean() / video.var()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--videos", type=int, default=100, help="training videos of each of the eight classes")
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for i, name in enumerate((ANNEALED, WARM, LOOKED_UP)):
            result = experiment.train(run_of(args, name), (args.out or Path(temporary)) / f"dvae-{i}")
            rows[name] = relaxed_error(result), score(result)
    print(f"\n| {args.codes} codes | error, relaxed | error, single codes | ratio | used, % | perplexity |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (relaxed, row) in rows.items():
        gap = f"{relaxed:.3f} | {row['nmse']:.3f} | {row['nmse'] / relaxed:.2f}"
        print(f"| {name} | {gap} | {100 * row['used']:.1f} | {row['perplexity']:.1f} |")
    gaps = {name: row["nmse"] / relaxed - 1 for name, (relaxed, row) in rows.items()}
    print(f"\nannealing closes the gap: {100 * gaps[ANNEALED]:.0f}% against {100 * gaps[WARM]:.0f}% (paper: closed)")


if __name__ == "__main__":
    main()
