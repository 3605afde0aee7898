"""Rotary position embeddings along one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence

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

    Raises:
        ValueError: ``head_dim`` is odd, too small for the axes, or not that of the sections.
    """

    def __init__(
        self, head_dim: int, *, axes: int = 1, base: float = 10_000.0, sections: Sequence[int] | None = None
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
        ladders = [base ** (-torch.arange(length, dtype=torch.float32) / length) for length in lengths]
        self.register_buffer("frequencies", torch.cat(ladders), persistent=False)
        axis = torch.arange(axes).repeat_interleave(torch.tensor(list(shares)), output_size=pairs)
        self.register_buffer("axis", axis, persistent=False)

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
    return start[..., None] + table[before] * visual[..., None]


def rope_ids_of_rows(visual: Tensor, grids: Tensor) -> Tensor:
    """The same where each row has one visual of its own size, on grids ``B 3``."""
    before = visual.cumsum(dim=1) - visual.to(torch.int64)
    time, height, width = grids[:, :, None].unbind(dim=1)
    texts = (~visual).to(torch.int64)
    ended = before >= time * height * width
    start = texts.cumsum(dim=1) - texts + ended * grids.amax(dim=1, keepdim=True)
    within = torch.stack([before // (height * width), before // width % height, before % width], dim=-1)
    return start[..., None] + within * visual[..., None]
