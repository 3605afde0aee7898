"""A pyramid finds actions of all lengths that one level does not, and attention need not reach far."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, below
from filmstrip.data.kinds.untrimmed import UntrimmedVideos
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.synthetic.untrimmed import Untrimmed
from filmstrip.inference import inference, on_device
from filmstrip.measure import complexity
from filmstrip.nn.masks import local
from filmstrip.nn.segments import iou
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.localisation import actionformer
from filmstrip.train.lengths import Steps

STEPS, VIDEOS, TESTS, NOISE = 120, 80, 40, 1.0
WINDOW, ROWS = 9, 2304
LEVELS = {
    "6 local": ((WINDOW,) * 6, "6 levels, within a window"),
    "6 everything": ((None,) * 6, "6 levels, to everything"),
    "3 local": ((WINDOW,) * 3, "3 levels, within a window"),
    "1 local": ((WINDOW,), "1 level, within a window"),
    "1 everything": ((None,), "1 level, to everything"),
}
LENGTHS = (2, 8, 32, 96)
"""Rows, between which actions are told apart."""
STRIDE = 4
RANGES = tuple(f"{least}-{most}" for least, most in pairwise(LENGTHS))

CLAIM = Claim(
    systems=("localisation.actionformer",),
    finding=__doc__.strip(),
    paper="Zhang et al. 2022 answer for short actions at fine levels and for long ones at coarse levels, each of "
    "which attends within a window of as many rows; the paper finds the pyramid necessary, and local attention as "
    "good as attention to everything, for less.",
    here="Videos hold actions of 2 to 96 rows, whose features are embeddings with noise; networks of the same width "
    "are trained alike (120 steps, 80 videos, 40 unseen ones). Mean average precision is over overlaps of 0.3 to "
    "0.7. Found are actions of which half is covered by one of the video's most confident segments (as many as it "
    "has actions), rightly named. Multiply-adds, and pairs of rows that attention joins, are of 2304 rows "
    "(THUMOS14's).",
    baseline="One level; attention to everything.",
    figures={
        key: figure
        for name, (_, says) in LEVELS.items()
        for key, figure in (
            (name, Figure(says=f"{says}: mAP, %")),
            *((f"{name}, {rows}", Figure(says=f"{says}: found of {rows} rows, %")) for rows in RANGES),
            (f"{name}, G", Figure(says=f"{says}: G multiply-adds", digits=2)),
            (f"{name}, pairs", Figure(says=f"{says}: M pairs", digits=2)),
        )
    },
    expected=(
        above("6 local", "1 local", "a pyramid finds more than one level, by 25 points", by=25.0),
        above("6 local", "3 local", "six levels find more than three"),
        above("6 local", "6 everything", "a window is as good as everything, within 5 points", by=-5.0),
        below("6 local, G", "6 everything, G", "for fewer multiply-adds"),
        below("1 everything", "6 local", "what one level lacks is not sight, by 25 points", by=25.0),
    ),
    analysis="One level does as badly with attention to everything as within a window: what it lacks is not sight, "
    "but a scale to measure distances with.",
    minutes=5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for name in LEVELS:
        result = experiment.train(small(name, seed), folder / name)
        found[name] = 100 * result.metrics["mAP"]
        right, there = found_by_length(result)
        shares = (100 * right / there).tolist()
        found |= {f"{name}, {rows}": share for rows, share in zip(RANGES, shares)}
        found[f"{name}, G"], found[f"{name}, pairs"] = work(name)
    return found


def small(levels: str, seed: int) -> Run:
    """A network with those levels, on such videos."""
    run = actionformer.tiny()
    videos = Untrimmed(
        num_train=VIDEOS,
        num_test=TESTS,
        actions=(2, 5),
        action_frames=(LENGTHS[0] * STRIDE, LENGTHS[-1] * STRIDE),
        background_frames=(16, 128),
    )
    features = UntrimmedVideos(max_length=320, window=STRIDE, stride=STRIDE, noise=NOISE, width=16)
    return replace(
        run,
        data=replace(run.data, synthetic=videos, reads=features),
        objective=replace(run.objective, windows=LEVELS[levels][0]),
        train=replace(run.train, length=Steps(STEPS), log_every=50),
        seed=seed,
    )


def found_by_length(result: experiment.Result) -> torch.Tensor:
    """Of the test videos' actions of each range of lengths, how many are found, and how many there are: ``2 3``."""
    counts = torch.zeros(2, len(LENGTHS) - 1)
    for batch in EvalLoader(result.source, result.run.data, "test", batch_size=1):
        with inference(result.objective):
            (found,) = result.objective.localise(on_device(batch, result.subject.device))
        there = batch["classes"][0] >= 0
        segments, classes = batch["segments"][0][there], batch["classes"][0][there]
        first, step = batch["timing"][0]
        surest = slice(len(classes))
        overlap = iou(first + segments.double() * step, found.segments[surest])
        right = ((overlap >= 0.5) & (classes[:, None] == found.classes[surest])).any(dim=1)
        kind = torch.bucketize((segments[:, 1] - segments[:, 0]).round(), torch.tensor(LENGTHS[1:-1]), right=True)
        counts += torch.stack([torch.bincount(k, minlength=counts.shape[1]) for k in (kind[right], kind)])
    return counts


def work(levels: str) -> tuple[float, float]:
    """G multiply-adds of a long video, of attention those that its windows join alone, and M pairs that they join."""
    run = small(levels, 0)
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
