"""The pyramid of maps that layers of an encoder make, and the network that proposes boxes from it.

Lin et al., "Feature Pyramid Networks for Object Detection", 2017; Ren et al., "Faster R-CNN", 2015.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.protocols import Batch
from filmstrip.randomness import uniform
from filmstrip.systems.detection.next_contact import boxes as geometry

ONE = (1.0, 1.0, 1.0, 1.0)
LEVELS = 5
SMOOTH = 1 / 9
"""Distance from which on the error of an offset grows linearly."""


class LayerMaps(nn.Module):
    """Maps of five sizes from the tokens of five layers: the first twice as fine as the tokens' grid, the second as
    fine, each further one half as fine as the one before."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(LEVELS))
        finer = nn.ConvTranspose2d(width, channels, 2, stride=2)
        coarser = [nn.Conv2d(width, channels, 2**i, stride=2**i) for i in range(LEVELS - 1)]
        self.resample = nn.ModuleList([finer, *coarser])

    def forward(self, layers: list[Tensor]) -> list[Tensor]:
        """Maps ``B C H W`` of last frames' tokens ``B h w D``, finest first."""
        maps = []
        for level, (tokens, norm, resample) in enumerate(zip(layers, self.norms, self.resample, strict=True)):
            x = rearrange(norm(tokens), "b h w d -> b d h w")
            multiple = max(1, 2 ** (level - 1))
            missing = [-size % multiple for size in x.shape[2:]]
            maps.append(resample(F.pad(x, (0, missing[1], 0, missing[0]))))
        return maps


class Pyramid(nn.Module):
    """Each map with the coarser ones added to it; as torchvision's, without its additional level."""

    def __init__(self, widths: list[int], channels: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.outer = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        for module in (*self.inner, *self.outer):
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps ``B C H W``, finest first, to as many of the same sizes."""
        x, found = None, []
        for level, inner, outer in zip(reversed(maps), reversed(self.inner), reversed(self.outer)):
            lateral = inner(level)
            x = lateral if x is None else lateral + F.interpolate(x, size=lateral.shape[2:], mode="nearest")
            found.append(outer(x))
        return found[::-1]


class Proposals(nn.Module):
    """Says of every anchor whether it holds something that will be touched, and how its box differs."""

    def __init__(
        self, channels: int, *, anchor_strides: float, candidates: int, proposals: int, samples: int
    ) -> None:
        super().__init__()
        kinds = len(geometry.RATIOS)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, kinds, 1)
        self.offset = nn.Conv2d(channels, 4 * kinds, 1)
        for module in (self.conv, self.score, self.offset):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        self.anchor_strides, self.candidates = anchor_strides, candidates
        self.proposals, self.samples = proposals, samples

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Scores ``B N``, offsets ``B N 4`` and anchors ``N 4`` of each level, in frames of ``size`` pixels."""
        scores, offsets, anchors = [], [], []
        for level in maps:
            x = F.relu(self.conv(level))
            scores.append(rearrange(self.score(x), "b a h w -> b (h w a)").float())
            offsets.append(rearrange(self.offset(x), "b (a c) h w -> b (h w a) c", c=4).float())
            stride = size[0] / level.shape[2]
            grid = (level.shape[2], level.shape[3])
            anchors.append(geometry.anchors_of(grid, stride, self.anchor_strides * stride, level.device))
        return scores, offsets, anchors

    @torch.no_grad()
    def propose(
        self, scores: list[Tensor], offsets: list[Tensor], anchors: list[Tensor], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The best boxes of all levels, ``B P 4``, and which of them are there, ``B P``.

        Suppression of overlaps above 0.7 is within a level.
        """
        boxes, ranked = [], []
        for score, offset, anchor in zip(scores, offsets, anchors):
            best, index = score.topk(min(self.candidates, score.shape[1]), dim=1)
            references = anchor.expand(index.shape[0], -1, -1)
            found = geometry.boxes_of(geometry.taken(offset, index), geometry.taken(references, index), ONE)
            found = geometry.clipped(found, *size)
            there = (found[..., 2:] - found[..., :2] >= 1e-3).all(dim=-1)
            best = torch.where(there, best, -torch.inf)
            best, order = best.sort(dim=1, descending=True, stable=True)
            found = geometry.taken(found, order)
            ranked.append(torch.where(geometry.survivors(found, best, 0.7), best, -torch.inf))
            boxes.append(found)
        score, index = torch.cat(ranked, dim=1).topk(min(self.proposals, sum(r.shape[1] for r in ranked)), dim=1)
        return geometry.taken(torch.cat(boxes, dim=1), index), score > -torch.inf

    def losses(
        self, scores: list[Tensor], offsets: list[Tensor], anchors: list[Tensor], boxes: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of chosen anchors, and error of the offsets of those that belong to ``boxes``."""
        score, offset = torch.cat(scores, dim=1), torch.cat(offsets, dim=1)
        anchor = torch.cat(anchors).expand(score.shape[0], -1, -1)
        with torch.no_grad():
            overlap = geometry.overlaps(anchor, boxes)
            overlap = torch.where(batch["is_object"][:, None], overlap, -1.0)
            matches = geometry.match(overlap, above=0.7, below=0.3, nearest=True)
            chance = uniform(batch["seed"], score.shape[1], "next_contact.anchors")
            positive, negative = geometry.sample(matches, chance, count=self.samples, share=0.5)
            target = geometry.offsets_of(geometry.taken(boxes, matches.index), anchor, ONE)
        chosen = (positive | negative).float()
        count = chosen.sum().clamp(min=1)
        wrong = F.binary_cross_entropy_with_logits(score, positive.float(), reduction="none")
        error = F.smooth_l1_loss(offset, target, beta=SMOOTH, reduction="none").sum(dim=-1)
        return (wrong * chosen).sum() / count, (error * positive).sum() / count
