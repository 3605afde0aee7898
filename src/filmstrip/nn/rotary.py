"""Rotary position embeddings along one, two or three axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.protocols import Grid


class Rotary(nn.Module):
    """Rotates queries and keys by their positions, so that their product depends on relative positions alone.

    Su et al. 2021 (RoFormer). With several axes, channels are divided evenly, earlier axes first, and each axis
    has its own frequencies. Channel ``i`` is paired with ``i + head_dim / 2``. ``sections`` instead cuts the
    frequencies of one axis into runs of so many pairs, one run for each axis, the fastest first (M-RoPE, Qwen2-VL):
    positions that are equal on all axes rotate as those of one axis do.

    There are two ways to read longer texts than were learnt. A base ``s`` times as large slows pair ``i`` of
    ``d / 2`` by ``s^(2i/d)``: the first not at all, so that neighbours stay as far apart. ``index_scale`` divides all
    positions (position interpolation, Chen et al. 2023), which slows every pair alike.

    Raises:
        ValueError: ``head_dim`` is odd, too small for the axes, or not that of the sections.
    """

    def __init__(
        self,
        head_dim: int,
        *,
        axes: int = 1,
        base: float = 10_000.0,
        index_scale: float = 1.0,
        sections: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        pairs = head_dim // 2
        if sections is not None:
            axes = len(sections)
            if 2 * sum(sections) != head_dim:
                raise ValueError(f"sections {tuple(sections)} need a head_dim of {2 * sum(sections)}, got {head_dim}")
        if head_dim % 2 or pairs < axes:
            raise ValueError(f"head_dim must be even and at least {2 * axes} for {axes} axes, got {head_dim}")
        shares = sections or [pairs // axes + (axis < pairs % axes) for axis in range(axes)]
        lengths = shares if sections is None else [pairs]
        # To the last bit those of transformers, which is 0.06 radians at a million tokens.
        ladders = [1.0 / base ** (torch.arange(length, dtype=torch.float32) / length) for length in lengths]
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.cat(ladders) / index_scale, persistent=False)
        axis = torch.arange(axes).repeat_interleave(torch.tensor(list(shares)), output_size=pairs)
        self.register_buffer("axis", axis, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Frequencies stay float32 when a network becomes bfloat16: a position in that has three digits."""
        before = self.frequencies
        super()._apply(fn, recurse)
        if self.frequencies.dtype != before.dtype:
            self.frequencies = before.to(self.frequencies.device)
        return self

    def forward(self, positions: Tensor) -> Tensor:
        """Angles (``... N head_dim/2``, radians, float32) of positions ``... N axes``."""
        return positions.to(torch.float32)[..., self.axis] * self.frequencies


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate ``B H N D`` queries or keys by angles ``N D/2`` or ``B N D/2``."""
    if angles.ndim == 3:
        angles = rearrange(angles, "b n d -> b 1 n d")
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def grid_positions(grid: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """Coordinates (``N axes``, int64) of a grid's positions in row-major order."""
    axes = [torch.arange(size, device=device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(grid))


def rope_ids(visual: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Positions along time, height and width of tokens among which visual ones stand, ``B N 3`` int64.

    ``visual`` (``B N`` bool) marks visual tokens: of every row the visuals of ``grids``, in order, or the first of
    them. Text has equal positions on the three axes, which count up. A visual starts at the next free position on
    each axis; text behind it goes on after the largest position of any axis (Wang et al. 2024, Qwen2-VL, section
    2.1).
    """
    device = visual.device
    before = visual.cumsum(dim=1) - visual.to(torch.int64)
    sizes = torch.tensor([grid.t * grid.h * grid.w for grid in grids], dtype=torch.int64, device=device)
    ends = sizes.cumsum(dim=0)
    complete = (before[..., None] >= ends).sum(dim=-1)
    spans = torch.tensor([0, *(max(grid) for grid in grids)], device=device).cumsum(dim=0)
    texts = (~visual).to(torch.int64)
    start = texts.cumsum(dim=1) - texts + spans[complete]
    within = [grid_positions(tuple(grid), device) for grid in grids]
    table = torch.cat([*within, torch.zeros(1, 3, dtype=torch.int64, device=device)])
    within_visuals = before.clamp(max=len(table) - 1)  # padding behind the last visual may be marked, too
    return start[..., None] + table[within_visuals] * visual[..., None]
