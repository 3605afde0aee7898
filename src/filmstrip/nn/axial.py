"""Attention along one axis of video at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import Attention


class AxialPositions(nn.Module):
    """Learned position embeddings of a grid: a third of the channels each for time, height and width."""

    def __init__(self, grid: Sequence[int], width: int) -> None:
        super().__init__()
        if width % 3:
            raise ValueError(f"width {width} is not a multiple of the three axes that share it")
        self.width = width
        self.axes = nn.ParameterList(torch.randn(size, width // 3) * 0.01 for size in grid)

    def forward(self, grid: Sequence[int]) -> Tensor:
        """Embeddings of the first positions of each axis, ``t h w D``.

        Raises:
            ValueError: the grid is larger than the learned one.
        """
        room = tuple(len(axis) for axis in self.axes)
        if any(wanted > there for wanted, there in zip(grid, room)):
            raise ValueError(f"a grid of {tuple(grid)} (t, h, w) exceeds the {room} learned positions")
        t, h, w = (axis[:size] for axis, size in zip(self.axes, grid))
        third = (*grid, self.width // 3)
        parts = (t[:, None, None].expand(third), h[None, :, None].expand(third), w[None, None].expand(third))
        return torch.cat(parts, dim=-1)


class AxialAttention(nn.Module):
    """The sum of attention along time, along height and along width, each over one line of positions at a time.

    Ho et al. 2019; summed and without biases on queries, keys and values as in VideoGPT.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.time, self.height, self.across = (Attention(width, num_heads, qkv_bias="none") for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """``B T H W D -> B T H W D``."""
        b, t, h, w, _ = x.shape
        along_t = self.time(rearrange(x, "b t h w d -> (b h w) t d"))
        along_h = self.height(rearrange(x, "b t h w d -> (b t w) h d"))
        along_w = self.across(rearrange(x, "b t h w d -> (b t h) w d"))
        return (
            rearrange(along_t, "(b h w) t d -> b t h w d", b=b, h=h, w=w)
            + rearrange(along_h, "(b t w) h d -> b t h w d", b=b, t=t, w=w)
            + rearrange(along_w, "(b t h) w d -> b t h w d", b=b, t=t, h=h)
        )
