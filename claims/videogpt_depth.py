"""A deeper prior models the codes of video better: bits for each code fall with the number of layers.

    python claims/videogpt_depth.py

One tokenizer of plain moving shapes (4 x 8 x 8 codes of 64), and VideoGPTs of 1 to 8 layers over its codes, all as
wide and trained as long. Numbers are bits for each code of unseen videos; "each place alone" is what a table of how
often each code occurs at each place would need, without context: priors of textured motions stay there for hundreds
of steps, some longer than others, which hides what depth does. Paper: BAIR, 2 to 16 layers (Yan et al. 2021, table
2.4 of the thesis).

At its defaults 1, 2, 4 and 8 layers need 2.086, 1.926, 1.897 and 1.888 bits, each place alone 3.809: every doubling
gains, the first one most, and the last one far less than the paper's. (The standard error of 0.045 is over videos,
the same ones for all depths.)
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from filmstrip.data.reading.loader import eval_batches
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.likelihood import Likelihood
from filmstrip.measure import complexity
from filmstrip.objectives.latent import LatentObjective
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.generation import videogpt
from filmstrip.systems.tokenizers import vqvae3d

PAPER = {1: (2, 2.84), 2: (4, 2.52), 4: (8, 2.39), 8: (16, 2.05)}  # ours: layers of the paper's, and bits/dim


def trained(run: Run, folder: Path, args: argparse.Namespace, steps: int) -> experiment.Result:
    """The run on plain moving shapes, for a number of steps."""
    shapes = Motions(
        train_per_class=args.videos,
        test_per_class=10,
        num_frames=16,
        size=32,
        difficulty=0.0,
        num_shapes=2,
        plain=True,
    )
    train = replace(run.train, steps=steps, log_every=50)
    return experiment.train(replace(run, data=replace(run.data, synthetic=shapes), train=train), folder)


def codes_of(result: experiment.Result, split: str) -> torch.Tensor:
    """The codes of one clip of each video, ``N P``."""
    prior: LatentObjective = result.objective
    return torch.cat([prior.codes(batch).ids for batch in eval_batches(result.source, result.run.data, split)])


def alone(result: experiment.Result) -> float:
    """Bits for a code of unseen videos where each place has a distribution of its own, learnt by counting."""
    size = result.objective.codebook_size
    seen, unseen = (codes_of(result, split) for split in (result.run.data.train_split, result.run.data.eval_split))
    share = F.one_hot(seen, size).double().add(1 / size).mean(dim=0)
    return -(share / share.sum(dim=1, keepdim=True)).log2().gather(1, unseen.T).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--videos", type=int, default=100, help="training videos of each of the eight classes")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        trained(vqvae3d.tiny(), out / "tokenizer", args, args.tokenizer_steps)
        for depth in PAPER:
            run = videogpt.tiny()
            run = replace(run, optim=replace(run.optim, lr=2e-3))
            objective = replace(run.objective, tokenizer_run=str(out / "tokenizer"), depth=depth, conditions=())
            result = trained(replace(run, objective=objective), out / f"depth-{depth}", args, args.steps)
            found = {name.split("/")[0]: value for name, value in Likelihood()(result.subject)}
            rows[depth] = (
                complexity.of_run(result.run).parameters,
                found["bits_per_dim"],
                found["bits_per_dim_error"],
            )
        plain = alone(result)
    print("\n| paper: layers | bits/dim | here: layers | bits/dim (standard error) | parameters, with tokenizer |")
    print("|---:|---:|---:|---:|---:|")
    for depth, (parameters, bits, error) in rows.items():
        layers, paper = PAPER[depth]
        print(f"| {layers} | {paper} | {depth} | {bits:.3f} ({error:.3f}) | {parameters:,} |")
    print(f"| | | each place alone | {plain:.3f} | |\n| | | codes alike | {math.log2(64):.3f} | |")
    bits = [row[1] for row in rows.values()]
    print(f"\neach more layers, fewer bits: {bits == sorted(bits, reverse=True)} (paper: True)")
    print(f"the deepest against the shallowest: {bits[-1] / bits[0]:.2f} of the bits (paper: {2.05 / 2.84:.2f})")


if __name__ == "__main__":
    main()
