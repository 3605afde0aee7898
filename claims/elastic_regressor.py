"""ElasticTok's regressor tells the lengths that a search finds, in one evaluation.

    python claims/elastic_regressor.py

The ElasticTok of ``claims/elastictok_busy.py``, and a copy of its encoder that learns the lengths which binary search
finds for an error. Numbers are on unseen blocks: how far lengths are from the shortest that meets the error (full
search), in percent of it; how often the tokenizer runs for a block; and how many blocks then meet the error. "One
length for all" is the training blocks' median, what a regressor that sees nothing could say. Paper: of 4096 lengths
(Yan et al. 2025, table 4.4).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from elastictok_busy import FRAMES, SIZE, blocks_of, errors_of, found_in, run_of
from filmstrip.inference import inference
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.tokenizers.elastic_regressor import ElasticRegressorConfig
from filmstrip.train.config import Loop, Optim

PAPER = {"full": "0; 4096", "binned": "0.5; 100", "binary": "7; 12", "regressor": "9; 1"}


def regressor(of: Run, tokenizer: Path, args: argparse.Namespace) -> Run:
    """A regressor of a trained tokenizer."""
    return replace(
        of,
        objective=ElasticRegressorConfig(
            tokenizer=of.objective, tokenizer_run=str(tokenizer), num_frames=FRAMES, size=SIZE, target=args.target
        ),
        optim=Optim(lr=1e-3, weight_decay=1e-4),
        train=Loop(steps=args.regressor_steps, log_every=25),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="of the tokenizer")
    parser.add_argument("--regressor-steps", type=int, default=100)
    parser.add_argument("--videos", type=int, default=300, help="walks to learn from")
    parser.add_argument("--target", type=float, default=0.015, help="mean squared error of a block, pixels in 0..1")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        tokenizer = experiment.train(run_of(args), out / "elastic")
        result = experiment.train(regressor(run_of(args), out / "elastic", args), out / "regressor")
    elastic, low = result.objective.tokenizer, tokenizer.objective.min_tokens
    blocks, known = (blocks_of(tokenizer, split)[:160] for split in ("test", "train"))
    table = errors_of(elastic, blocks, range(low, elastic.max_tokens + 1))
    found = {method: found_in(table, method, args.target, low) for method in ("full", "binned", "binary")}
    with inference(result.objective):
        found["regressor"] = (result.objective.lengths(blocks)[:, 0], 1)
        typical = elastic.encode_to(known, args.target).tokens.lengths.median()
    found["one length for all"] = (typical.expand(len(blocks)), 0)
    exact, rows = found["full"][0], {}
    print("\n| | paper: off by, %; evaluations | off by, % | evaluations | blocks that meet the error, % | tokens |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (lengths, evaluations) in found.items():
        rows[name] = 100 * ((lengths - exact).abs() / exact).float().mean().item()
        met = 100 * (table.gather(1, lengths[:, None] - low)[:, 0] <= args.target).float().mean().item()
        columns = f"{rows[name]:.1f} | {evaluations} | {met:.0f} | {lengths.float().mean():.1f}"
        print(f"| {name} | {PAPER.get(name, '')} | {columns} |")
    agreement = torch.corrcoef(torch.stack([found["regressor"][0].float(), exact.float()]))[0, 1].item()
    print(f"\nlengths that the regressor predicts and those that full search finds correlate at {agreement:.2f}")
    better = rows["regressor"] < rows["one length for all"]
    print(f"nearer than one length for all: {better}; less exact than binary search: ", end="")
    print(f"{rows['regressor'] > rows['binary']} (paper: True)")


if __name__ == "__main__":
    main()
