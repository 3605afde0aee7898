"""What an image teacher makes of frames stays alike over time, and what a video teacher makes of them does not."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from claims.ledger import Claim, Figure, above
from claims.squares import FRAMES, image_teacher, make, video_teacher
from filmstrip.protocols import Features

CLIPS = 400
MOMENTS = FRAMES // 2

CLAIM = Claim(
    systems=("pretraining.mvd",),
    finding=__doc__.strip(),
    paper="Wang et al. 2023, figure of the similarity of frames' features by their distance: the image teacher's "
    "features stay similar, the video teacher's fall off (a curve without figures in the text).",
    here="A square of one of four patterns moves in one of four ways (8 frames of 32 x 32, four steps of two "
    "frames). Labels have taught an image network its pattern and a video network its way. Their tokens are averaged "
    f"over each step; the cosine with the first step's, less the mean of all vectors of {CLIPS} clips, by distance.",
    baseline="The image teacher.",
    figures={
        f"{name} {d}": Figure(says=f"{says}: cosine with the first step, {d} later", digits=3)
        for name, says in {"image": "image teacher", "video": "video teacher"}.items()
        for d in range(1, MOMENTS)
    },
    expected=(
        above("image 3", "video 3", "the image teacher's steps stay more alike, three apart"),
        above("image 1", "video 1", "and one apart"),
    ),
    minutes=1.5,
    analysis="The experiment is at fault: the video teacher was taught the way of a square by labels, and its "
    "attention over time says the same of every step (cosines of 0.996), whereas the image teacher "
    "tells where the square stands between its patches (0.53 one step later, 0.96 two). The paper's "
    "video teacher predicts masked pixels, which differ from step to step.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    clips, _ = make(CLIPS, torch.Generator().manual_seed(1000 + seed))
    video, image = clips["video"], clips["video"][:, ::2]
    found = {}
    for name, encoder, seen in (
        ("image", image_teacher(seed).encoder, image),
        ("video", video_teacher(seed).encoder, video),
    ):
        alike = cosines(encoder, seen)
        found |= {f"{name} {d}": alike[d] for d in range(1, MOMENTS)}
    return found


@torch.no_grad()
def cosines(encoder: nn.Module, video: torch.Tensor) -> list[float]:
    """The mean cosine of each step's vector with the first one's, by distance."""
    encoder.eval()
    said: list[Features] = [encoder(part) for part in video.split(50)]
    steps = torch.cat([part.tokens.unflatten(1, (part.grid.t, -1)).mean(dim=2) for part in said])
    steps = steps - steps.mean(dim=(0, 1))
    return F.cosine_similarity(steps, steps[:, :1], dim=-1).mean(dim=0).tolist()
