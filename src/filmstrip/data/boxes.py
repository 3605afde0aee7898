"""Boxes in frames: placement, intersection and area."""

from __future__ import annotations

import torch
from torch import Tensor

Slices = tuple[slice, slice]
"""Slices of the rows and columns of a box."""


def boxes(y: Tensor, x: Tensor, box_height: Tensor, box_width: Tensor, height: int, width: int) -> list[Slices]:
    """Boxes of whole pixels within a frame of ``height`` and ``width``.

    ``y`` and ``x`` (``B``, in 0..1, on the CPU like the sizes) place each box: at 0 it touches the top or left edge,
    at 1 the opposite one.
    """
    return list(zip(_spans(y, box_height, height), _spans(x, box_width, width)))


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of every pair of boxes (``N 4`` and ``M 4``: left, top, right, bottom), ``N M``.

    Zero for two without an area.
    """
    shared = area(intersection(one[:, None], other[None]))
    either = area(one)[:, None] + area(other)[None] - shared
    return torch.where(either > 0, shared / either, 0)


def intersection(one: Tensor, other: Tensor) -> Tensor:
    """The intersection of boxes ``... 4``, ``... 4``; a box of zero area if they do not overlap."""
    first = torch.maximum(one[..., :2], other[..., :2])
    return torch.cat([first, torch.maximum(torch.minimum(one[..., 2:], other[..., 2:]), first)], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """The area of boxes ``... 4``."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def _spans(place: Tensor, length: Tensor, size: int) -> list[slice]:
    length = length.round().clamp(max=size)
    start = (place * (size - length)).round()
    return [slice(int(first), int(last)) for first, last in zip(start.tolist(), (start + length).tolist())]


def mirrored(boxes: Tensor) -> Tensor:
    """Boxes (``... 4``: left, top, right, bottom, as fractions of the frame), mirrored horizontally."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([1 - right, top, 1 - left, bottom], dim=-1)
