"""Self-distillation and masked prediction, in the last part of SigLIP 2's training: local views and a whole one."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Ascending, Count, CountOrZero, PositiveShare, Share, Weight
from filmstrip.models.image_tower import ImageTower
from filmstrip.nn.mlp import MLP
from filmstrip.nn.roi_align import roi_align
from filmstrip.protocols import as_float
from filmstrip.randomness import uniform

_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """A teacher that follows the image tower, and what is learnt from it."""

    after: CountOrZero
    """Number of steps before it begins."""
    weight: Weight = 1.0
    """Factor of both losses, by the size of the model: 0.25, 0.5, 1.0, 0.5 for B, L, So400m, g."""
    consistency: Weight = 1.0
    """Weight of the distance between vectors of local views and the teacher's of the whole one."""
    prediction: Weight = 0.25
    """Weight of the distance between predicted tokens of masked patches and the teacher's."""
    momentum: Share = 0.999
    """Momentum of the teacher."""
    crops: Count = 8
    """Number of local views."""
    crop_size: Count
    """Height and width of a local view in pixels, whole patches."""
    local_area: Annotated[tuple[PositiveShare, PositiveShare], Ascending] = (0.05, 0.4)
    """Range of a local view's share of the frame."""
    whole_area: Annotated[tuple[PositiveShare, PositiveShare], Ascending] = (0.4, 1.0)
    """Range of the whole view's share of the frame."""
    masked: Share = 0.5
    """Share of patches of the whole view that are masked for the student."""
    hidden: Count
    """Width of the hidden layer of both heads."""
    dim: Count = 256
    """Channels of the vectors of views that are compared."""


class Distillation(nn.Module):
    """The teacher, the heads of the losses, and the vector in the place of masked patches."""

    def __init__(self, config: DistillationConfig, encoder: ImageTower) -> None:
        super().__init__()
        self.config = config
        width = encoder.width
        self.view_head = MLP(width, config.hidden, config.dim)
        self.patch_head = MLP(width, config.hidden, width)
        self.mask_vector = nn.Parameter(torch.zeros(width))
        self.teacher = copy.deepcopy(nn.ModuleList([encoder, self.view_head])).requires_grad_(False)
        self.teacher.eval()

    def train(self, mode: bool = True) -> Self:
        """As any module; the teacher stays in evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self

    def losses(self, encoder: ImageTower, video: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """The mean squared distances of vectors of length one: of local views, and of masked patches.

        ``video`` is ``B T C H W``; views are crops of it, all frames alike, drawn from each clip's seed (``B``).
        """
        config = self.config
        side = encoder.grid.h * encoder.patch_size[1]
        whole = _crops(video, seeds, 1, config.whole_area, side, "siglip2.whole")
        local = _crops(video, seeds, config.crops, config.local_area, config.crop_size, "siglip2.local")
        teacher, teacher_head = self.teacher
        with torch.no_grad():
            seen = teacher(whole)
            target, patches = _unit(teacher_head(seen.pooled())), _unit(seen.tokens)
        views = _unit(self.view_head(encoder(local).pooled())).unflatten(0, (-1, config.crops))
        consistency = (views - target[:, None]).square().sum(dim=-1).mean()
        count = encoder.grid.h * encoder.grid.w
        order = uniform(seeds, count, "siglip2.masked").argsort(dim=1)
        masked = torch.zeros_like(order, dtype=torch.bool)
        masked = masked.scatter(1, order[:, : max(1, round(config.masked * count))], True)
        predicted = _unit(self.patch_head(encoder(whole, hidden=(masked, self.mask_vector)).tokens))
        distance = (predicted - patches).square().sum(dim=-1).unflatten(1, (-1, count))
        share = masked[:, None].expand_as(distance).to(distance.dtype)
        return consistency, (distance * share).sum() / share.sum()

    @torch.no_grad()
    def move(self, encoder: ImageTower, *, whole: bool) -> None:
        """Move the teacher towards the tower and its head, or, if ``whole``, set it to them."""
        student = [*encoder.parameters(), *self.view_head.parameters()]
        weight = 1.0 if whole else 1 - self.config.momentum
        torch._foreach_lerp_(list(self.teacher.parameters()), student, weight)


def _crops(video: Tensor, seeds: Tensor, count: int, area: tuple[float, float], size: int, use: str) -> Tensor:
    """Random crops ``(B count) T C size size`` of ``B T C H W`` video in 0..1, of a share of its area each."""
    height, width = video.shape[3:]
    drawn = uniform(seeds, 4 * count, use).unflatten(1, (count, 4))
    share = area[0] + (area[1] - area[0]) * drawn[..., 0]
    low, high = map(math.log, _ASPECT)
    aspect = (low + (high - low) * drawn[..., 1]).exp()
    wide, tall = (share * aspect).sqrt().clamp(max=1), (share / aspect).sqrt().clamp(max=1)
    left, top = drawn[..., 2] * (1 - wide), drawn[..., 3] * (1 - tall)
    boxes = torch.stack([left * width, top * height, (left + wide) * width, (top + tall) * height], dim=-1)
    cut = roi_align(rearrange(as_float(video), "b t c h w -> b (t c) h w"), boxes, size=size, samples=2)
    return rearrange(cut, "b m (t c) h w -> (b m) t c h w", t=video.shape[1])


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=-1)
