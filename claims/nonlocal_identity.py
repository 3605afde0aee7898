"""A nonlocal block changes nothing when it is put into a trained network, and does no harm once it has learnt."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, equal
from claims.training import learn, logits, percent, picked
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.models.resnet3d import width_of
from filmstrip.systems.recognition import nonlocal_net
from filmstrip.systems.recognition.nonlocal_net import NonLocal, insert_nonlocal

AFTER = ((1, 0), (2, 0))
"""The stages and blocks that a nonlocal block is put behind."""
STEPS, VIDEOS, TESTS = 200, 80, 40

CLAIM = Claim(
    systems=("recognition.nonlocal_net",),
    finding=__doc__.strip(),
    paper="Wang et al. 2018 start the scale of the block's last normalisation at zero, so that it fits into any "
    "trained network (the lecture, section 24.4.2).",
    here="A small network of that kind learns eight motions, 80 videos of each, in 200 steps; two blocks are put "
    "into a copy of it, and both go on for 200 steps with the same clips. 320 unseen videos, chance 12.5.",
    baseline="The same network going on without blocks.",
    figures={
        "change": Figure(says="largest change of a logit by inserting", digits=7),
        "before": Figure(says="top-1 before, %"),
        "without": Figure(says="top-1 after as many steps again, without blocks, %"),
        "with": Figure(says="top-1 after as many steps again, with two blocks, %"),
    },
    expected=(
        equal("change", 0.0, "inserting changes no logit", within=0.0),
        above("with", "without", "blocks do no harm, within 5 points", by=-5.0),
    ),
    analysis="Inserting is the identity, exactly. After as many steps again networks with and without blocks differ "
    "by less than seeds do.",
    minutes=3.5,
    seeds=5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    train, test = clips(VIDEOS, (seed, 0)), clips(TESTS, (seed, 1))
    run = nonlocal_net.tiny()
    torch.manual_seed(seed)
    plain = replace(run.objective, nonlocal_after=((),) * len(run.objective.depths)).build()
    learn(plain, picked(*train, run.data.batch_size, seed), steps=STEPS, lr=run.optim.lr)
    before = logits(plain, test[0])
    blocks = copy.deepcopy(plain)
    for stage, block in AFTER:
        width = width_of(blocks.encoder.stages[stage])
        insert_nonlocal(blocks.encoder, f"stages.{stage}.{block}", NonLocal(width))
    found = {
        "change": (logits(blocks, test[0]) - before).abs().max().item(),
        "before": percent(before.argmax(dim=1), test[1]),
    }
    for name, network in (("without", plain), ("with", blocks)):
        learn(network, picked(*train, run.data.batch_size, seed + 1), steps=STEPS, lr=run.optim.lr)
        found[name] = percent(logits(network, test[0]).argmax(dim=1), test[1])
    return found


def clips(count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``count`` clips ``T 3 H W`` uint8 of each motion, every other frame, and their labels."""
    clip = nonlocal_net.tiny().data.clip
    drawn = Motions(num_frames=clip.num_frames * clip.stride, size=32)
    videos = [
        drawn.render(motion, np.random.default_rng((*seed, i, k)))[:: clip.stride]
        for i, motion in enumerate(MOTIONS)
        for k in range(count)
    ]
    return torch.stack(videos), torch.arange(len(MOTIONS)).repeat_interleave(count)
