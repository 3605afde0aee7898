"""RoIAlign: features within boxes, resampled to a fixed grid without rounding coordinates."""

from __future__ import annotations

import torch
from torch import Tensor


def roi_align(
    features: Tensor, boxes: Tensor, *, size: int = 7, samples: int | None = None, aligned: bool = True
) -> Tensor:
    """Features within boxes: ``B C H W`` and ``B M 4`` to ``B M C size size`` (He et al. 2017, Mask R-CNN).

    Boxes are (left, top, right, bottom) in pixels of the feature map, whose first pixel covers 0 to 1 and is centred
    at 0.5; unless ``aligned``, it is centred at 0 and sides are at least one pixel, as some public networks were
    trained. Each box is divided into ``size x size`` cells; a cell is the mean of ``samples x samples`` bilinearly
    interpolated values at the centres of equal parts. With ``samples`` none, their number along each axis is that of
    the pixels a cell covers, rounded up. The map is extended by one pixel of edge padding, and is zero beyond.

    Interpolation and mean are separable: one matrix each for rows and columns, whose product with the map is exact.

    Raises:
        ValueError: boxes and features are not of these shapes, or ``samples`` is less than one.
    """
    if features.ndim != 4 or boxes.ndim != 3 or boxes.shape[-1] != 4 or boxes.shape[0] != features.shape[0]:
        raise ValueError(
            f"expected features (B, C, H, W) and boxes (B, M, 4), got {tuple(features.shape)}, {tuple(boxes.shape)}"
        )
    if samples is not None and samples < 1:
        raise ValueError(f"samples must be one or more, or None, not {samples}")
    left, top, right, bottom = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).unbind(-1)
    if aligned:  # from coordinates in which a pixel covers 0 to 1 to those of pixel centres
        left, top, right, bottom = left - 0.5, top - 0.5, right - 0.5, bottom - 0.5
    else:
        right, bottom = torch.maximum(right, left + 1), torch.maximum(bottom, top + 1)
    rows = _weights(top, bottom, features.shape[2], size, samples).to(features.dtype)
    columns = _weights(left, right, features.shape[3], size, samples).to(features.dtype)
    return torch.einsum("bmph,bchw,bmqw->bmcpq", rows, features, columns)


def _weights(first: Tensor, last: Tensor, length: int, size: int, samples: int | None) -> Tensor:
    """Weights of every cell over the ``length`` pixels of one axis: ``B M size length`` for bounds ``B M``."""
    cell = (last - first) / size
    if samples is None:
        # At least two: a graph exported with dynamic shapes would specialise on one.
        maximum = torch.sym_max(-(-length // size), 2)
        count = cell.detach().ceil().clamp(1, maximum)[..., None, None]
    else:
        maximum, count = samples, torch.full_like(cell, samples)[..., None, None]
    sample = torch.arange(maximum, device=first.device, dtype=cell.dtype)
    cells = torch.arange(size, device=first.device, dtype=cell.dtype)[:, None]
    position = first[..., None, None] + (cells + (sample + 0.5) / count) * cell[..., None, None]
    counts = (sample < count) & (position >= -1) & (position <= length)
    share = counts.to(cell.dtype) / count
    centre = torch.arange(length, device=first.device, dtype=cell.dtype)
    near = (1 - (position.clamp(0, length - 1)[..., None] - centre).abs()).clamp(min=0)
    return (near * share[..., None]).sum(dim=-2)
