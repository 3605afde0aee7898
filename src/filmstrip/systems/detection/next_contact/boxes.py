"""Boxes of a detector in static shapes: anchors, offsets, matching, sampling and suppression (Ren et al. 2015).

Boxes are left, top, right, bottom in pixels of the frame, ``B N 4`` float32. What is absent is masked, never cut out,
so that no shape depends on the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from filmstrip.data.boxes import area, intersection

RATIOS = (0.5, 1.0, 2.0)
"""Heights of anchors over their widths."""
LARGEST = math.log(1000 / 16)
"""Largest logarithm by which an offset enlarges a side."""
ROUNDS = 20
"""Rounds of suppression: exact unless a box is decided by a chain of more boxes than this."""


class Matches(NamedTuple):
    """To which annotated box each box belongs, all ``B N``."""

    index: Tensor
    """The annotated box of the largest overlap, int64."""
    positive: Tensor
    negative: Tensor


def anchors_of(grid: tuple[int, int], stride: float, side: float, device: torch.device) -> Tensor:
    """Anchors ``h*w*3 4`` of a map whose positions are ``stride`` pixels apart, of areas ``side**2``.

    Corners of boxes about zero are rounded to whole pixels and shifted by whole strides, as in torchvision.
    """
    ratios = torch.tensor(RATIOS, device=device)
    heights, widths = side * ratios.sqrt(), side / ratios.sqrt()
    corners = (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()
    y, x = (torch.arange(n, device=device, dtype=torch.float32) * stride for n in grid)
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)
    return (shifts[:, :, None] + corners).reshape(-1, 4)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of every pair: ``B N 4`` and ``B M 4`` to ``B N M``; zero for two without an area."""
    shared = area(intersection(one[:, :, None], other[:, None]))
    either = area(one)[:, :, None] + area(other)[:, None] - shared
    return torch.where(either > 0, shared / either, 0.0)


def offsets_of(boxes: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """Shift and logarithmic growth that turn references into boxes, times ``weights``: ``... 4``."""
    middle, size = _middle_and_size(boxes)
    start, scale = _middle_and_size(references)
    scale, size = scale.clamp(min=1e-6), size.clamp(min=1e-6)
    found = torch.cat([(middle - start) / scale, (size / scale).log()], dim=-1)
    return found * torch.tensor(weights, device=boxes.device)


def boxes_of(offsets: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """The inverse of :func:`offsets_of`; growth is limited."""
    shift, growth = (offsets / torch.tensor(weights, device=offsets.device)).split(2, dim=-1)
    start, scale = _middle_and_size(references)
    middle, half = start + shift * scale, scale * growth.clamp(max=LARGEST).exp() / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def _middle_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    first, last = boxes.split(2, dim=-1)
    return (first + last) / 2, last - first


def clipped(boxes: Tensor, height: float, width: float) -> Tensor:
    """The parts of boxes within the frame."""
    limit = torch.tensor([width, height, width, height], device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), limit)


def match(found: Tensor, *, above: float, below: float, nearest: bool) -> Matches:
    """Match boxes by their overlaps with annotated ones (``B N M``, below zero for padding).

    Positive from an overlap of ``above`` on, negative below ``below``. With ``nearest`` each annotated box also gets
    the boxes that overlap it most, however little.
    """
    best, index = found.max(dim=2)
    positive = best >= above
    if nearest:
        most = found.max(dim=1, keepdim=True).values
        positive = positive | ((found == most) & (most >= 0)).any(dim=2)
    return Matches(index, positive, (best < below) & ~positive)


def sample(matches: Matches, chance: Tensor, *, count: int, share: float) -> tuple[Tensor, Tensor]:
    """Choose at most ``count`` boxes, of which at most ``share`` are positive, by ``chance`` (``B N`` in 0..1).

    Returns masks ``B N`` of chosen positives and chosen negatives.
    """
    positive = matches.positive & (_rank(chance, matches.positive) < int(count * share))
    room = count - positive.sum(dim=1, keepdim=True)
    return positive, matches.negative & (_rank(chance, matches.negative) < room)


def _rank(chance: Tensor, among: Tensor) -> Tensor:
    """The place of each box in the order of chance, those of ``among`` first."""
    return torch.where(among, chance, 2.0).argsort(dim=1).argsort(dim=1)


@torch.no_grad()
def survivors(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None = None) -> Tensor:
    """Which boxes no better one of their group suppresses by an overlap above ``threshold``: ``B N``.

    ``scores`` ``B N`` is in descending order, minus infinity where there is no box. A box survives if none that
    survives before it overlaps it: this rule is applied to all at once until nothing changes, :data:`ROUNDS` times.
    """
    there = scores > -torch.inf
    near = overlaps(boxes, boxes) > threshold
    if groups is not None:
        near &= groups[:, :, None] == groups[:, None]
    near = near.triu(diagonal=1).to(boxes.dtype)
    keep = there
    for _ in range(ROUNDS):
        keep = there & ~(torch.einsum("bn,bnm->bm", keep.to(boxes.dtype), near) > 0)
    return keep


def taken(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (``B K``) of ``B N ...``."""
    shape = index.shape + values.shape[2:]
    return values.gather(1, index.view(*index.shape, *[1] * (values.ndim - 2)).expand(shape))
