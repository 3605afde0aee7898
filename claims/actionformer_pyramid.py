"""A pyramid finds actions of all lengths that one level does not, and attention need not reach far.

    python claims/actionformer_pyramid.py

ActionFormer (Zhang et al. 2022) answers for short actions at fine levels and for long ones at coarse levels, each of
which attends within a window of as many rows; the paper finds the pyramid necessary, and local attention as good as
attention to everything, for less. Here videos hold actions of 2 to 96 rows, whose features are embeddings with noise,
and networks of the same width are trained alike. Mean average precision is over overlaps of 0.3 to 0.7. The columns
of lengths are shares of actions of which half is covered by one of the video's surest segments (as many as it has
actions), rightly named. Multiply-adds, and pairs of rows that attention joins, are of 2304 rows (THUMOS14's). One
level does as badly with attention to everything as within a window: what it lacks is not sight, but a scale to
measure distances with.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from filmstrip.data.kinds.untrimmed import UntrimmedVideos
from filmstrip.data.reading.loader import eval_batches
from filmstrip.data.synthetic.untrimmed import Untrimmed
from filmstrip.measure import complexity
from filmstrip.nn.masks import local
from filmstrip.nn.segments import iou
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.localisation import actionformer

WINDOW, ROWS = 9, 2304
LEVELS = {
    "6 levels, local": (WINDOW,) * 6,
    "6 levels, everything": (None,) * 6,
    "3 levels, local": (WINDOW,) * 3,
    "1 level, local": (WINDOW,),
    "1 level, everything": (None,),
}
LENGTHS = (2, 8, 32, 96)
"""Rows, between which actions are told apart."""
STRIDE = 4


def small(levels: str, args: argparse.Namespace, seed: int) -> Run:
    run = actionformer.tiny()
    videos = Untrimmed(
        num_train=args.videos,
        num_test=40,
        actions=(2, 5),
        action_frames=(LENGTHS[0] * STRIDE, LENGTHS[-1] * STRIDE),
        background_frames=(16, 128),
    )
    features = UntrimmedVideos(max_length=320, window=STRIDE, stride=STRIDE, noise=args.noise, width=16)
    return replace(
        run,
        data=replace(run.data, synthetic=videos, reads=features),
        objective=replace(run.objective, windows=LEVELS[levels]),
        train=replace(run.train, steps=args.steps, log_every=50),
        seed=seed,
    )


def found_by_length(result: experiment.Result) -> torch.Tensor:
    """Of the test videos' actions of each range of lengths, how many are found, and how many there are: ``2 3``."""
    counts = torch.zeros(2, len(LENGTHS) - 1)
    for batch in eval_batches(result.source, result.run.data, "test", batch_size=1):
        (found,) = result.objective.localise(batch)
        there = batch["classes"][0] >= 0
        segments, classes = batch["segments"][0][there], batch["classes"][0][there]
        first, step = batch["timing"][0]
        surest = slice(len(classes))
        overlap = iou(first + segments.double() * step, found.segments[surest])
        right = ((overlap >= 0.5) & (classes[:, None] == found.classes[surest])).any(dim=1)
        kind = torch.bucketize((segments[:, 1] - segments[:, 0]).round(), torch.tensor(LENGTHS[1:-1]), right=True)
        counts += torch.stack([torch.bincount(k, minlength=counts.shape[1]) for k in (kind[right], kind)])
    return counts


def cost(levels: str, args: argparse.Namespace) -> tuple[float, float]:
    """G multiply-adds of a long video, of attention those that its windows join alone, and M pairs that they join."""
    run = small(levels, args, 0)
    network = replace(run.objective, num_classes=8, feature_width=16)
    run = replace(run, objective=network, data=replace(run.data, reads=UntrimmedVideos(max_length=ROWS)))
    rows = [ROWS, ROWS, *(ROWS // 2**level for level in range(1, len(network.windows)))]
    windows = [network.windows[0], *network.windows]
    every = sum(n * n for n in rows)
    joined = sum(
        n * n if window is None else int(local(window // 2).dense(n, n, torch.device("cpu")).sum())
        for n, window in zip(rows, windows)
    )
    # What attends densely is counted so; what a window leaves out is taken off again.
    whole = complexity.of_run(run).multiply_adds
    return (whole - 2 * network.width * (every - joined)) / 1e9, joined / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--videos", type=int, default=80)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=LEVELS, default=list(LEVELS))
    args = parser.parse_args()
    ranges = [f"{least}-{most} rows" for least, most in pairwise(LENGTHS)]
    print(f"| network | mAP | {' | '.join(ranges)} | G multiply-adds | M pairs |\n|---|{'---:|' * (len(ranges) + 3)}")
    for levels in args.only:
        values, counts = [], torch.zeros(2, len(LENGTHS) - 1)
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                result = experiment.train(small(levels, args, seed), Path(folder) / "run")
                values.append(100 * result.metrics["mAP"])
                counts += found_by_length(result)
        work, pairs = cost(levels, args)
        shares = " | ".join(f"{100 * share:.0f}" for share in (counts[0] / counts[1]).tolist())
        mean = sum(values) / len(values)
        seeds = ", ".join(f"{value:.1f}" for value in values)
        print(f"| {levels} | {mean:.1f} ({seeds}) | {shares} | {work:.2f} | {pairs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
