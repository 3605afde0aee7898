"""Boxes in frames."""

from __future__ import annotations

from torch import Tensor

Slices = tuple[slice, slice]
"""Rows and columns of a box."""


def boxes(y: Tensor, x: Tensor, box_height: Tensor, box_width: Tensor, height: int, width: int) -> list[Slices]:
    """Boxes of whole pixels that fit a frame of ``height`` and ``width``.

    ``y`` and ``x`` (``B``, in 0..1, on the CPU like the sizes) place each box: at 0 it touches the top or left edge,
    at 1 the opposite one.
    """
    return list(zip(_spans(y, box_height, height), _spans(x, box_width, width)))


def _spans(place: Tensor, length: Tensor, size: int) -> list[slice]:
    length = length.round().clamp(max=size)
    start = (place * (size - length)).round()
    return [slice(int(first), int(last)) for first, last in zip(start.tolist(), (start + length).tolist())]
