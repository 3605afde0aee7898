"""RoIAlign: features of a map within boxes, by interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor


def roi_align(
    features: Tensor, boxes: Tensor, *, size: int = 7, samples: int | None = None, aligned: bool = True
) -> Tensor:
    """Features within boxes: ``B C H W`` and ``B M 4`` to ``B M C size size`` (He et al. 2017, Mask R-CNN).

    Boxes are left, top, right, bottom in positions of the map, whose first position covers 0 to 1 and is centred at
    0.5; unless ``aligned``, it is centred at 0 and no side is shorter than one position, as some public networks were
    trained. Each box is cut into ``size x size`` cells, of which each is the mean of ``samples x samples`` values,
    read by bilinear interpolation at the centres of equal parts; none: as many along each axis as the positions that
    a cell of that box covers, rounded up. Up to one position beyond its outermost centres the map continues as it is
    there; further out it is zero.

    Interpolation and mean act on rows and columns apart: each is a matrix, and their product with the map is exact.

    Raises:
        ValueError: boxes and features are not of these shapes, or ``samples`` is less than one.
    """
    if features.ndim != 4 or boxes.ndim != 3 or boxes.shape[-1] != 4 or boxes.shape[0] != features.shape[0]:
        raise ValueError(
            f"expected features (B, C, H, W) and boxes (B, M, 4), got {tuple(features.shape)}, {tuple(boxes.shape)}"
        )
    if samples is not None and samples < 1:
        raise ValueError(f"samples is one or more, or none, not {samples}")
    rows, columns = _rows_and_columns(features, boxes, size, samples, aligned)
    return torch.einsum("bmph,bchw,bmqw->bmcpq", rows, features, columns)


def roi_align_levels(
    levels: Sequence[Tensor],
    boxes: Sequence[Tensor],
    level: Tensor,
    *,
    size: int = 7,
    samples: int | None = None,
    aligned: bool = True,
) -> Tensor:
    """The same of a pyramid of maps, each box on its own ``level`` (``B M``, integers): ``B M C size size``.

    ``boxes`` are those of each level, in positions of its map. As in any static shape all levels are computed for all
    boxes, but only up to their rows: columns of all levels are summed in one product.
    """
    parts, shares = [], []
    for number, (features, on_map) in enumerate(zip(levels, boxes, strict=True)):
        rows, columns = _rows_and_columns(features, on_map, size, samples, aligned)
        rows = rows * (level == number).to(rows.dtype)[..., None, None]
        read = rows.flatten(1, 2) @ rearrange(features, "b c h w -> b h (w c)")
        parts.append(rearrange(read, "b (m p) (w c) -> b m p w c", p=size, c=features.shape[1]))
        shares.append(columns)
    found = torch.cat(shares, dim=-1)[:, :, None] @ torch.cat(parts, dim=3)
    return rearrange(found, "b m p q c -> b m c p q")


def _rows_and_columns(
    features: Tensor, boxes: Tensor, size: int, samples: int | None, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Weights of the map's rows and columns in the cells of each box, ``B M size H`` and ``B M size W``."""
    left, top, right, bottom = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).unbind(-1)
    if aligned:  # from coordinates of which a position covers 0 to 1 to those of the positions' centres
        left, top, right, bottom = left - 0.5, top - 0.5, right - 0.5, bottom - 0.5
    else:
        right, bottom = torch.maximum(right, left + 1), torch.maximum(bottom, top + 1)
    rows = _shares(top, bottom, features.shape[2], size, samples).to(features.dtype)
    return rows, _shares(left, right, features.shape[3], size, samples).to(features.dtype)


def _shares(first: Tensor, last: Tensor, extent: int, size: int, samples: int | None) -> Tensor:
    """Weights of ``extent`` positions along one axis in every cell: ``B M size extent`` for bounds ``B M``."""
    cell = (last - first) / size
    if samples is None:
        # Two at least: a graph for maps of any size would take a single one for what it always is.
        maximum = torch.sym_max(-(-extent // size), 2)
        count = cell.detach().ceil().clamp(1, maximum)[..., None, None]
    else:
        maximum, count = samples, torch.full_like(cell, samples)[..., None, None]
    sample = torch.arange(maximum, device=first.device, dtype=cell.dtype)
    cells = torch.arange(size, device=first.device, dtype=cell.dtype)[:, None]
    position = first[..., None, None] + (cells + (sample + 0.5) / count) * cell[..., None, None]
    counts = (sample < count) & (position >= -1) & (position <= extent)
    share = counts.to(cell.dtype) / count
    centre = torch.arange(extent, device=first.device, dtype=cell.dtype)
    near = (1 - (position.clamp(0, extent - 1)[..., None] - centre).abs()).clamp(min=0)
    return (near * share[..., None]).sum(dim=-2)
