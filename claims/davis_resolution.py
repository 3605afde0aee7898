"""Objects are tracked better by features on a finer grid of tokens: J&F grows with the frames' resolution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from claims.ledger import FOLDER, Claim, Figure, above
from claims.mobilenet import WEIGHTS, MobileNetV2, pretrained
from filmstrip.data.annotations.davis import MaskedFilm
from filmstrip.data.config import Clip, Data
from filmstrip.evals.label_propagation import LabelPropagation
from filmstrip.runs.encoders import EncoderAlone
from filmstrip.runs.evaluation import Subject

DAVIS = FOLDER.parents[1] / "shared/data/vos/DAVIS"
FRAMES = 25
STRIDE = 16
"""Pixels of a token along height and width."""
SIDES = (8, 16, 32)

CLAIM = Claim(
    systems=("pretraining.toto",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, DAVIS 2017, label propagation: Toto-large with 64 x 64 tokens a frame reaches a "
    "J&F of 62.4, with 32 x 32 tokens 44.8; DINO-B with 28 x 28 tokens 54.3, with 14 x 14 tokens 33.1.",
    here="An image network with ImageNet's weights (MobileNetV2, the output of its 13th block, 16 pixels a token) "
    "on frames of 128, 256 and 512 pixels: 8, 16 and 32 tokens a side. Four films of DAVIS 2016, 25 frames of each, "
    "from frame 5 s of seed s on. J&F of the public evaluation; labels from the first and the last 7 frames, a "
    "radius of 12 tokens, the 5 most similar ones.",
    baseline="The next coarser grid; and the same network with random weights, on the finest grid.",
    figures={
        **{f"{side} tokens": Figure(says=f"{side} x {side} tokens: J&F, %") for side in SIDES},
        "random": Figure(says="random weights, 32 x 32 tokens: J&F, %"),
    },
    expected=(
        above("16 tokens", "8 tokens", "16 x 16 tokens track better than 8 x 8", by=5.0),
        above("32 tokens", "16 tokens", "32 x 32 tokens track better than 16 x 16", by=5.0),
        above("32 tokens", "random", "it is not the grid alone: trained features beat random ones"),
    ),
    minutes=6,
    needs=(DAVIS, WEIGHTS),
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    trained = pretrained()
    found = {f"{side} tokens": tracked(trained, side, seed) for side in SIDES}
    torch.manual_seed(seed)
    return {**found, "random": tracked(MobileNetV2().eval(), SIDES[-1], seed)}


def tracked(encoder: MobileNetV2, side: int, seed: int) -> float:
    """J&F, in per cent, on a grid of ``side`` x ``side`` tokens."""
    protocol = LabelPropagation(size=STRIDE * side)
    data = Data(path=DAVIS, clip=Clip(num_frames=1))
    source = protocol.own_source(data)
    source = replace(source, samples=tuple(part_of(film, 5 * seed) for film in source.samples))
    subject = Subject(objective=EncoderAlone(encoder), source=source, data=data, device=torch.device("cpu"))
    return 100 * dict(protocol(subject))["J&F"]


def part_of(film: MaskedFilm, start: int) -> MaskedFilm:
    """Some frames of a film, from one on."""
    span = slice(start, start + FRAMES)
    return replace(film, frames=film.frames[span], masks=film.masks[span])
