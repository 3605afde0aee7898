"""The video Swin transformer: attention within 3D windows that shift from layer to layer, in four stages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import LinearStart, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.nn.patches import PatchEmbed
from filmstrip.nn.relative_positions import Extent
from filmstrip.nn.windows import WindowAttention, fitted, neighbours
from filmstrip.protocols import Features, Grid, check_video


class SwinBlock(nn.Module):
    """Window attention, then a feed-forward network, each on normalised places and added back."""

    def __init__(
        self, width: int, num_heads: int, window: Extent, shift: Extent, *, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, num_heads, window, shift)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, round(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """``B T H W D -> B T H W D``; ``visible`` as in :class:`~filmstrip.nn.windows.WindowAttention`."""
        x = x + self.drop_path(self.attention(self.norm1(x), visible))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Merge(nn.Module):
    """Two by two places of a frame become one with twice the channels: ``B T H W D -> B T H/2 W/2 2D``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Raises:
        ValueError: height or width is odd.
        """
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"a grid of {tuple(x.shape[1:4])} (t, h, w) cannot be halved in height and width")
        # Across within down: the order that published weights have.
        return self.reduce(self.norm(rearrange(x, "b t (h p) (w q) d -> b t h w (q p d)", p=2, q=2)))


class VideoSwin(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of patches whose grid halves and whose width doubles by stages.

    Liu et al. 2022. Every second block's windows are shifted by half their size. Any clip that the patches and three
    halvings tile will do.
    """

    def __init__(
        self,
        *,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: Extent = (8, 7, 7),
        patch_size: Extent = (2, 4, 4),
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        linear_start: LinearStart = "normal",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.depths = tuple(depths)
        self.depth = sum(depths)
        self.patch_size = patch_size
        self.window = window
        self.shift = tuple(n // 2 for n in window)
        self.embed = PatchEmbed(width, patch_size, mean=mean, std=std)
        self.embed_norm = nn.LayerNorm(width)
        self.stages, self.merges = nn.ModuleList(), nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(depths, num_heads)):
            before = sum(depths[:stage])
            blocks = nn.ModuleList(
                SwinBlock(
                    width,
                    heads,
                    window,
                    self.shift if i % 2 else (0, 0, 0),
                    mlp_ratio=mlp_ratio,
                    drop_path=drop_path * (before + i) / max(1, self.depth - 1),
                )
                for i in range(depth)
            )
            self.stages.append(nn.ModuleDict({"blocks": blocks}))
            if stage < len(depths) - 1:
                self.merges.append(Merge(width))
                width *= 2
        self.width = width
        self.norm = nn.LayerNorm(width)
        init_linear(self, linear_start)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each block's tokens, on grids and widths of its own."""
        check_video(video, multiple=self.patch_size)
        p, q, r = self.patch_size
        t, h, w = video.shape[1] // p, video.shape[3] // q, video.shape[4] // r
        x = rearrange(self.embed_norm(self.embed(video)), "b (t h w) d -> b t h w d", t=t, h=h, w=w)
        seen = []
        for i, stage in enumerate(self.stages):
            sizes = x.shape[1:4]
            whole, shifted = (
                neighbours(sizes, *fitted(sizes, self.window, shift), x.device) for shift in ((0, 0, 0), self.shift)
            )
            for block in stage["blocks"]:
                x = block(x, shifted if any(block.attention.shift) else whole)
                if layers:
                    seen.append(x.flatten(1, 3))
            if i < len(self.merges):
                x = self.merges[i](x)
        return Features(self.norm(x).flatten(1, 3), Grid(*x.shape[1:4]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the embedding, ``i + 1`` for the ``i``-th block of all stages."""
        if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name):
            return sum(self.depths[: int(match[1])]) + int(match[2]) + 1
        if match := re.match(r"merges\.(\d+)\.", name):
            return sum(self.depths[: int(match[1]) + 1])
        return 0 if name.startswith("embed") else self.depth + 1
