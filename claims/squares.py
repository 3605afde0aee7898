"""Squares of four patterns that move in four ways over plain ground; teachers whom labels taught one of the two, and
students of these, of pixels, and of few tokens.

A frame tells the pattern and no way, so that an image network knows appearance; a video network that was taught ways
has no reason to keep patterns. Teachers and students are trained once for all claims that run in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from claims.training import Batch, learn
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.objectives.classification import Classification
from filmstrip.protocols import EncoderModule, Loss, Objective
from filmstrip.systems.pretraining import internvideo2, mvd, videomae
from filmstrip.systems.pretraining.internvideo2 import FrameEncoder
from filmstrip.systems.recognition import vit

SIZE, FRAMES, PATCH, SIDE, BATCH = 32, 8, 8, 8, 16
WAYS = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])
"""Rows and columns that a square moves by, times its speed."""
_ROW, _COLUMN = torch.meshgrid(torch.arange(SIDE) // 2 % 2, torch.arange(SIDE) // 2 % 2, indexing="ij")
PATTERNS = torch.stack([_ROW, _COLUMN, (_ROW + _COLUMN) % 2, torch.ones_like(_ROW)]).bool()
"""Stripes across and down, checks, and plain: where a square has its colour."""
SIZES = {"size": SIZE, "num_heads": 2, "width": 48, "depth": 3, "num_frames": FRAMES, "patch_size": (2, PATCH, PATCH)}
"""Of students and of the teacher of ways."""
VIDEO_TEACHER = replace(vit.tiny().objective, **SIZES, num_classes=len(WAYS))
IMAGE_TEACHER = replace(
    internvideo2.tiny().objective.image_teacher, size=SIZE, num_heads=2, width=48, patch_size=(1, PATCH, PATCH)
)
TEACHER_STEPS, STEPS, LR = 250, 200, 2e-3
LABELLED, TESTS = 320, 400
What = Literal["pattern", "way"]
WHATS: tuple[What, ...] = ("pattern", "way")
_DECODER = {"decoder_width": 32, "decoder_depth": 1, "decoder_num_heads": 2, "masking": "random", "mask_ratio": 0.75}
_TEACHERS = {"image_teacher": IMAGE_TEACHER, "video_teacher": VIDEO_TEACHER}
MASKED = replace(mvd.tiny().objective, **SIZES, **_DECODER, **_TEACHERS)
ALIGNED = replace(internvideo2.tiny().objective, **SIZES, **_TEACHERS, image_layers=2, video_layers=2)
FEW = 0.9
"""Share of the tokens that students do not see where these are few."""
STUDENTS: dict[str, Any] = {
    "pixels": replace(videomae.tiny().objective, **SIZES, **_DECODER),
    "image": replace(MASKED, teachers="image"),
    "video": replace(MASKED, teachers="video"),
    "both": MASKED,
    "aligned": ALIGNED,
    "salient": replace(ALIGNED, mask_ratio=FEW),
    "random": replace(ALIGNED, mask_ratio=FEW, keep="random"),
}
"""What learns without labels, by name: from masked pixels, from one teacher's masked features or both's, and from
both teachers' at the tokens that it sees."""


def make(count: int, generator: torch.Generator) -> tuple[Batch, Tensor]:
    """Clips with the numbers of their ways and patterns, and where their squares are, ``B T H W`` bool."""
    pattern, way = (torch.randint(4, (count,), generator=generator) for _ in range(2))
    begin = torch.randint(SIZE, (count, 1, 2), generator=generator)
    speed = 2 + torch.randint(2, (count, 1, 1), generator=generator)
    corner = begin + WAYS[way][:, None] * speed * torch.arange(FRAMES)[:, None]
    paint = 80 + torch.randint(176, (count, 1, 3, 1, 1), generator=generator)
    rows, columns = ((torch.arange(SIZE) - corner[..., axis, None]) % SIZE for axis in (0, 1))
    there = (rows < SIDE)[..., :, None] & (columns < SIDE)[..., None, :]
    inside = [place.clamp(max=SIDE - 1) for place in (rows[..., :, None], columns[..., None, :])]
    painted = there & PATTERNS[pattern[:, None, None, None], inside[0], inside[1]]
    video = torch.where(painted[:, :, None], paint, 30).to(torch.uint8)
    return {"video": video, "way": way, "pattern": pattern}, there


def drawn(seed: int) -> Callable[[], Batch]:
    """Draws batches that are never the same, with a seed for each clip."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Batch:
        batch, _ = make(BATCH, generator)
        return batch | {"label": batch["way"], "seed": torch.randint(1 << 40, (BATCH,), generator=generator)}

    return draw


class Patterns(Objective):
    """Names the pattern in each frame by the pooled output of an image encoder."""

    def __init__(self, encoder: FrameEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.pool.out.out_features, len(PATTERNS))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy over two frames of each clip."""
        logits = self.head(self.encoder(batch["video"][:, ::4]).summary)
        return Loss(F.cross_entropy(logits.flatten(0, 1), batch["pattern"].repeat_interleave(logits.shape[1])), {})


@cache
def video_teacher(seed: int) -> Classification:
    """A classifier of ways."""
    torch.manual_seed(seed)
    return learn(VIDEO_TEACHER.build(), drawn(seed), steps=TEACHER_STEPS, lr=LR)


@cache
def image_teacher(seed: int) -> Patterns:
    """A classifier of patterns that sees frames alone."""
    torch.manual_seed(seed)
    return learn(Patterns(IMAGE_TEACHER.build().encoder), drawn(100 + seed), steps=TEACHER_STEPS, lr=LR)


def untrained(name: str, seed: int) -> Objective:
    """A student's first weights, with its trained teachers."""
    torch.manual_seed(seed)
    network = STUDENTS[name].build()
    for part, teacher in (("image_teacher", image_teacher), ("video_teacher", video_teacher)):
        if hasattr(network, part):
            getattr(network, part).encoder.load_state_dict(teacher(seed).encoder.state_dict())
    return network


@cache
def student(name: str, seed: int) -> Objective:
    """A student after its training."""
    return learn(untrained(name, seed), drawn(200 + seed), steps=STEPS, lr=LR)


def probe_sets(seed: int) -> tuple[Batch, Batch]:
    """Clips that probes are fitted to, and others that they are tested on."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return make(LABELLED, generator)[0], make(TESTS, generator)[0]


def probed(encoder: EncoderModule, sets: tuple[Batch, Batch], what: What) -> float:
    """Top-1 of a linear classifier of the mean token, %."""
    few, test = sets
    x, y = (pooled(encoder, clips["video"]) for clips in sets)
    return 100 * LinearProbe().top1(x, few[what], y, test[what], 4)


@torch.no_grad()
def pooled(encoder: EncoderModule, videos: Tensor) -> Tensor:
    """The mean token of each clip, ``N D``."""
    encoder.eval()
    return torch.cat([encoder(part).tokens.mean(dim=1) for part in videos.split(50)])
