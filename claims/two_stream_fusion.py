"""Flow tells how things move and frames tell what they are; two streams together know more than either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below
from claims.training import learn, percent, picked
from filmstrip.data.synthetic.motions import Motions
from filmstrip.objectives.two_stream import TwoStream
from filmstrip.protocols import as_float
from filmstrip.systems.recognition import two_stream

WAYS = ("left", "right", "up", "down")
STEPS, VIDEOS, TESTS = 400, 40, 25

CLAIM = Claim(
    systems=("recognition.two_stream",),
    finding=__doc__.strip(),
    paper="Simonyan & Zisserman 2014, UCF-101 (top-1): spatial 73.0, temporal 83.7, averaged 86.9, fused by SVM "
    "88.0.",
    here="A class is a motion (left, right, up or down) of bright shapes on a dark ground or, colours inverted, of "
    "dark ones on a bright ground: a frame tells the ground alone (25.0 on average), flow the motion alone (50.0), "
    "and chance is 12.5. 400 steps on 40 videos of each class, 200 unseen videos.",
    baseline="Either stream alone.",
    figures={
        "spatial": Figure(says="frames, spatial stream: top-1, %", paper="73.0"),
        "temporal": Figure(says="flow, temporal stream: top-1, %", paper="83.7"),
        "average": Figure(says="both, averaged: top-1, %", paper="86.9"),
        "svm": Figure(says="both, by SVM: top-1, %", paper="88.0"),
    },
    expected=(
        above("average", "temporal", "both know more than flow alone, by 3.2 points", by=3.2),
        above("temporal", "spatial", "flow tells more than frames"),
        above("svm", "average", "an SVM fuses better than the average, by 1.1 points", by=1.1),
        below("spatial", 35.0, "frames know no motion, by the way the classes are made"),
    ),
    minutes=1.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    run = two_stream.tiny()
    torch.manual_seed(seed)
    network = replace(run.objective, num_classes=2 * len(WAYS)).build()
    train, test = clips(VIDEOS, (seed, 0)), clips(TESTS, (seed, 1))
    learn(network, picked(*train, run.data.batch_size, seed), steps=STEPS, lr=run.optim.lr)
    return top1(network, *test)


def clips(count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``count`` clips ``T 3 H W`` uint8 of each class, and their labels: twice the motion, plus one if inverted."""
    clip = two_stream.tiny().data.clip
    drawn = Motions(num_frames=clip.num_frames * clip.stride, difficulty=0.0)
    videos = []
    for i, way in enumerate(WAYS):
        for inverted in (0, 1):
            for k in range(count):
                video = drawn.render(way, np.random.default_rng((*seed, i, inverted, k)))[:: clip.stride]
                videos.append(255 - video if inverted else video)
    return torch.stack(videos), torch.arange(2 * len(WAYS)).repeat_interleave(count)


@torch.no_grad()
def top1(network: TwoStream, videos: Tensor, label: Tensor) -> dict[str, float]:
    """The percentages that each stream, their mean and the SVM name rightly."""
    parts = [network.streams(as_float(part)) for part in videos.split(32)]
    spatial, temporal = (torch.cat(stream) for stream in zip(*parts))
    said = {
        "spatial": spatial,
        "temporal": temporal,
        "average": torch.logaddexp(spatial, temporal),
        "svm": network.svm(torch.cat([spatial, temporal], dim=1).exp()),
    }
    return {name: percent(scores.argmax(dim=1), label) for name, scores in said.items()}
