"""Rotary position embeddings along one, two or three axes."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotates queries and keys by their positions, so that their product depends on relative positions alone.

    Su et al. 2021 (RoFormer). With several axes, channels are divided evenly, earlier axes first, and each axis
    has its own frequencies. Channel ``i`` is paired with ``i + head_dim / 2``.

    Raises:
        ValueError: ``head_dim`` is odd, or too small for the axes.
    """

    def __init__(self, head_dim: int, *, axes: int = 1, base: float = 10_000.0) -> None:
        super().__init__()
        pairs = head_dim // 2
        if head_dim % 2 or pairs < axes:
            raise ValueError(f"head_dim must be even and at least {2 * axes} for {axes} axes, got {head_dim}")
        shares = [pairs // axes + (axis < pairs % axes) for axis in range(axes)]
        ladders = [base ** (-torch.arange(share, dtype=torch.float32) / share) for share in shares]
        self.register_buffer("frequencies", torch.cat(ladders), persistent=False)
        axis = torch.arange(axes).repeat_interleave(torch.tensor(shares), output_size=pairs)
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
