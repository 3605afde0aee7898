"""Fixed sine-cosine position tables."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from filmstrip.nn.rotary import grid_positions
from filmstrip.protocols import Grid

PositionKind = Literal["table", "axes"]
"""Fixed vectors of a grid's positions: of the flattened sequence, or of time, height and width side by side."""


def sincos(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions ``... N``: ``... N width``, float32.

    Vaswani et al. 2017: channels ``2i`` and ``2i+1`` hold the sine and cosine of ``position / 10000^(2i/width)``.
    """
    channel = torch.arange(width, dtype=torch.float64, device=positions.device)
    angle = positions.to(torch.float64)[..., None] / 10_000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).to(torch.float32)


def sincos_table(length: int, width: int) -> Tensor:
    """:func:`sincos` of the positions of a flattened sequence, ``length x width``, float32."""
    return sincos(torch.arange(length), width)


def sincos_axes(grid: Grid, width: int) -> Tensor:
    """Sines and cosines of time, width and height side by side, ``N width``, float32.

    A quarter of the channels is time's and three eighths are each of the other two; of every axis all sines come
    first. As in MVD, whose code has them from MAE's.

    Raises:
        ValueError: ``width`` does not divide so.
    """
    if width % 16:
        raise ValueError(f"positions of separate axes need a width that is a multiple of 16, got {width}")
    where = grid_positions(grid).to(torch.float64)
    parts = []
    for axis, channels in ((0, width // 4), (2, width // 8 * 3), (1, width // 8 * 3)):
        frequencies = 10_000.0 ** (-torch.arange(channels // 2, dtype=torch.float64) / (channels // 2))
        angles = where[:, axis, None] * frequencies
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=1).to(torch.float32)


def sincos_halves(positions: Tensor, width: int) -> Tensor:
    """Sines of positions ``N`` at ``width / 2`` frequencies, then their cosines, ``N width``, float64.

    As in MAE and DiT.
    """
    frequencies = 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_plane(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of column and row side by side, ``rows*columns width``, float32; sines come first in each.

    As in MAE: the first half of the channels is the column's.

    Raises:
        ValueError: ``width`` is not a multiple of four.
    """
    if width % 4:
        raise ValueError(f"positions of rows and columns need a width that is a multiple of 4, got {width}")
    where = grid_positions((rows, columns))
    return torch.cat([sincos_halves(where[:, axis], width // 2) for axis in (1, 0)], dim=1).to(torch.float32)


def fixed_positions(kind: PositionKind, grid: Grid, width: int) -> Tensor:
    """Sine-cosine vectors of a grid's positions, ``N width``, float32."""
    return sincos_axes(grid, width) if kind == "axes" else sincos_table(grid.t * grid.h * grid.w, width)


def resized(table: Tensor, grid: tuple[int, int], places: Tensor, grids: Tensor) -> Tensor:
    """Learned positions of another grid than theirs, by bilinear interpolation with antialiasing: ``B N D``.

    ``table`` (``h*w D``) are those of ``grid`` (rows and columns); ``places`` (``B N 2``) are the rows and columns
    that are wanted, of ``grids`` (``B 2``) which may all be of other sizes. Every position is a mean of the table's,
    whose weights fall linearly with the distance and sum to one, as those of ``torch.nn.functional.interpolate``.
    """
    rows, columns = (_shares(places[..., i], grids[:, i : i + 1], grid[i]) for i in (0, 1))
    both = (rows[..., :, None] * columns[..., None, :]).flatten(2)
    return both.to(table.dtype) @ table


def resized_whole(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """All positions (``h*w D``) of another grid, as :func:`resized`."""
    sizes = torch.tensor([wanted], device=table.device)
    return resized(table, grid, grid_positions(wanted, table.device)[None], sizes)[0]


def _shares(place: Tensor, size: Tensor, extent: int) -> Tensor:
    """Weights of ``extent`` positions along one axis for places ``B N`` among ``size`` (``B 1``): ``B N extent``."""
    step = extent / size.to(torch.float32)
    centre = (place + 0.5) * step
    near = torch.arange(extent, device=place.device) + 0.5
    share = (1 - (near - centre[..., None]).abs() / step.clamp(min=1)[..., None]).clamp(min=0)
    return share / share.sum(dim=-1, keepdim=True)
