"""A teacher of small students, whom labels have taught eight motions, and what its students know of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from claims.moving import clips, shifted
from claims.training import Batch, Network, learn
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.objectives.classification import Classification
from filmstrip.protocols import EncoderModule, as_float
from filmstrip.systems.recognition import vit

TEACHER_STEPS, STEPS, BATCH, LR = 300, 300, 16, 1e-3
VIDEOS, LABELLED, TESTS = 40, 20, 50
"""Videos of each motion: for teacher and students, for probes, and to test these."""
DRAWN, STRIDE = Motions(num_frames=16, size=32, difficulty=0.0), 2
SIZES = {"num_frames": 8, "size": 32, "patch_size": (2, 4, 4), "width": 64, "depth": 3, "num_heads": 2}
TEACHER = replace(vit.tiny().objective, **SIZES)


class Sets(NamedTuple):
    """Clips ``N 8 3 32 32`` and their labels: of teacher and students, of probes, and of tests."""

    train: tuple[Tensor, Tensor]
    probe: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def drawn(seed: int) -> Sets:
    """Videos that no other set has."""
    return Sets(*(clips(count, (seed, i), DRAWN, STRIDE) for i, count in enumerate((VIDEOS, LABELLED, TESTS))))


def teacher(sets: Sets, seed: int) -> Classification:
    """A classifier of motions, whose encoder is the teacher."""
    torch.manual_seed(seed)
    return learn(TEACHER.build(), shifted(*sets.train, BATCH, seed), steps=TEACHER_STEPS, lr=LR)


def student(network: Network, sets: Sets, seed: int) -> Network:
    """A network after as many steps on the same videos, whose labels it is not told."""
    return learn(network, seeded(shifted(*sets.train, BATCH, seed), seed), steps=STEPS, lr=LR)


def seeded(draw: Callable[[], Batch], seed: int) -> Callable[[], Batch]:
    """Batches without labels, with a seed for each clip, by which its masks are chosen."""
    generator = torch.Generator().manual_seed(seed)

    def batch() -> Batch:
        return {"video": draw()["video"], "seed": torch.randint(1 << 40, (BATCH,), generator=generator)}

    return batch


def probed(encoder: EncoderModule, sets: Sets) -> float:
    """Top-1 of a linear classifier of the mean token, %, on videos that neither teacher nor student has seen."""
    (train, labels), (test, expected) = ((pooled(encoder, videos), y) for videos, y in (sets.probe, sets.test))
    return 100 * LinearProbe().top1(train, labels, test, expected, len(MOTIONS))


@torch.no_grad()
def pooled(encoder: EncoderModule, videos: Tensor) -> Tensor:
    """One vector for each clip, ``N D``."""
    encoder.eval()
    return torch.cat([encoder(as_float(part)).pooled() for part in videos.split(32)])
