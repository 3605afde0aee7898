"""Ids of plain motions, drawn in memory, and small Totos that learn them: for claims about sizes and rates."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.protocols import Batch
from filmstrip.systems import find
from filmstrip.systems.pretraining.toto import Toto
from filmstrip.train.optim import AdamW, set_rates
from filmstrip.train.schedules import Constant

FRAMES, SIZE, PATCH, LEVELS = 8, 32, 8, 4
DRAWN = Motions(num_frames=FRAMES * 2, size=SIZE, difficulty=0.0, num_shapes=4, plain=True)
CODES = LEVELS**3
PER_CLIP = FRAMES * (SIZE // PATCH) ** 2
CLIPS, HELD_OUT, BATCH = 30, 8, 16
"""Clips of each motion that batches are drawn from and that are held out; clips in a batch."""


class Codes:
    """Clips as ids, ``N PER_CLIP``: batches that are shifted by chance around the torus of the motions."""

    def __init__(self, seed: int) -> None:
        self.videos = _videos(CLIPS, (seed, 0))
        self.held_out = ids_of(_videos(HELD_OUT, (seed, 1)))
        self.seed = seed

    @cache  # noqa: B019 (lives as long as a seed of a claim)
    def batch(self, step: int, size: int = BATCH) -> Batch:
        """The same for the same step, whoever asks: every network learns from the same batches."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        chosen = torch.randint(len(self.videos), (size,), generator=generator)
        shifts = torch.randint(SIZE, (size, 2), generator=generator).tolist()
        video = torch.stack([self.videos[i].roll(by, dims=(2, 3)) for i, by in zip(chosen.tolist(), shifts)])
        return {"tokens": ids_of(video)}

    def unigram(self) -> float:
        """Nats for a held-out code by the frequency of each code in training batches."""
        seen = torch.cat([self.batch(step, 64)["tokens"] for step in range(8)])
        share = torch.bincount(seen.flatten(), minlength=CODES).double() + 1
        return -(share / share.sum()).log()[self.held_out].mean().item()


def _videos(count: int, seed: tuple[int, ...]) -> Tensor:
    """Clips ``N T 3 H W`` uint8, as many of each motion, of every other frame."""
    return torch.stack(
        [
            DRAWN.render(way, np.random.default_rng((*seed, i, k)))[::2]
            for i, way in enumerate(MOTIONS)
            for k in range(count)
        ]
    )


def ids_of(videos: Tensor) -> Tensor:
    """The mean colour of each patch in four levels of red, green and blue: ``N T 3 H W`` uint8 to ``N PER_CLIP``."""
    means = F.avg_pool2d(videos.flatten(0, 1).float(), PATCH)
    levels = (means * LEVELS / 256).long()
    ids = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
    return ids.view(len(videos), PER_CLIP)


def toto(seed: int, **sizes: object) -> Toto:
    """A Toto of such sizes for these codes; its tokenizer is never asked."""
    torch.manual_seed(seed)
    # The tiny tokenizer's patches are of 4 pixels.
    config = replace(find("pretraining.toto:tiny").objective, num_frames=FRAMES, size=4 * SIZE // PATCH, **sizes)
    return config.build()


def learn(network: Toto, codes: Codes, *, rate: float, steps: int, measured: Collection[int]) -> dict[int, float]:
    """Train at a constant rate after a short warm-up; returns the held-out loss, nats a code, after some steps.

    Training that diverges ends there, with an infinite loss.
    """
    optim = AdamW(lr=rate, betas=(0.9, 0.95), weight_decay=0.0, schedule=Constant(warmup=0.1))
    optimiser = optim.build(network, network.phases()[0])
    found = {}
    for step in range(steps):
        set_rates([optimiser], optim, step, steps)
        optimiser.zero_grad()
        loss = network(codes.batch(step)).total
        if not math.isfinite(loss.item()):
            return {**found, **{later: math.inf for later in measured if later > step}}
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step + 1 in measured:
            found[step + 1] = held_out_loss(network, codes)
    return found


@torch.no_grad()
def held_out_loss(network: Toto, codes: Codes) -> float:
    """Nats a code of the held-out clips."""
    return -network.log_prob({"tokens": codes.held_out}).mean().item() / PER_CLIP
