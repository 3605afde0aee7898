"""UniFormer: depthwise convolutions mix neighbours while places are many, attention mixes all when they are few."""

from __future__ import annotations

import re
from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from filmstrip.models.resnet3d import PIXEL_MEAN, PIXEL_STD
from filmstrip.nn.block import Block
from filmstrip.nn.conv import channels_first, tokens_of
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.normalise import Normalise
from filmstrip.protocols import Features, Grid, check_video


def _depthwise(width: int, kernel: int) -> nn.Conv3d:
    return nn.Conv3d(width, width, kernel, padding=kernel // 2, groups=width)


class LocalBlock(nn.Module):
    """Positions, relations to the 5 x 5 x 5 places around, a feed-forward network; each is added. ``B C T H W``.

    Li et al. 2022 (UniFormer), equation 6: the affinity of two places is a number learnt for their offset, for each
    channel: a depthwise convolution between two linear layers. Positions are depthwise convolutions too (dynamic
    position embedding, equation 4).
    """

    def __init__(self, width: int, *, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.positions = _depthwise(width, 3)
        self.norm1 = nn.BatchNorm3d(width)
        self.values = nn.Conv3d(width, width, 1)
        self.affinity = _depthwise(width, 5)
        self.out = nn.Conv3d(width, width, 1)
        self.norm2 = nn.BatchNorm3d(width)
        self.mlp = nn.Sequential(nn.Conv3d(width, hidden, 1), nn.GELU(), nn.Conv3d(hidden, width, 1))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C T H W``."""
        x = x + self.positions(x)
        x = x + self.drop_path(self.out(self.affinity(self.values(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class GlobalBlock(Block):
    """Positions as in :class:`LocalBlock`, then a transformer's block over all places. ``B C T H W``."""

    def __init__(self, width: int, num_heads: int, *, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__(width, num_heads, mlp_ratio=mlp_ratio, drop_path=drop_path)
        self.positions = _depthwise(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C T H W``."""
        x = x + self.positions(x)
        y = super().forward(tokens_of(x))
        return rearrange(y, "b (t h w) c -> b c t h w", t=x.shape[2], h=x.shape[3])


class Shrink(nn.Module):
    """A convolution that cuts frames into squares, with neighbouring frames where ``frames`` says, normalised."""

    def __init__(self, inputs: int, width: int, size: int, *, frames: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, width, (frames, size, size), (stride, size, size), (frames // 2, 0, 0))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B D T/stride H/size W/size``."""
        y = self.norm(rearrange(self.conv(x), "b c t h w -> b t h w c"))
        return rearrange(y, "b t h w c -> b c t h w")


class UniFormer(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: ``local_stages`` stages of local blocks, then stages of global ones.

    Li et al. 2022. The first stage halves time and quarters height and width, the others halve height and width.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 8, 3),
        head_dim: int = 64,
        local_stages: int = 2,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        mean: Sequence[float] = PIXEL_MEAN,
        std: Sequence[float] = PIXEL_STD,
    ) -> None:
        super().__init__()
        self.depths = tuple(depths)
        self.depth = sum(depths)
        self.width = widths[-1]
        self.normalise = Normalise(mean, std)
        self.stages = nn.ModuleList()
        inputs = 3
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            shrink = Shrink(inputs, width, 2) if stage else Shrink(inputs, width, 4, frames=3, stride=2)
            blocks = nn.ModuleList()
            for i in range(sum(depths[:stage]), sum(depths[:stage]) + depth):
                options = {"mlp_ratio": mlp_ratio, "drop_path": drop_path * i / max(1, self.depth - 1)}
                if stage < local_stages:
                    blocks.append(LocalBlock(width, **options))
                else:
                    blocks.append(GlobalBlock(width, width // head_dim, **options))
            self.stages.append(nn.ModuleDict({"shrink": shrink, "blocks": blocks}))
            inputs = width
        self.norm = nn.BatchNorm3d(self.width)
        self.apply(init_normal)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each block's tokens, on grids and widths of its own.

        Raises:
            ValueError: the clip is not a multiple of the strides, 2 in time and 32 in space with four stages.
        """
        scale = 2 ** (len(self.depths) + 1)
        check_video(video, multiple=(2, scale, scale))
        x = channels_first(self.normalise(video))
        seen = []
        for stage in self.stages:
            x = stage["shrink"](x)
            for block in stage["blocks"]:
                x = block(x)
                if layers:
                    seen.append(tokens_of(x))
        return Features(tokens_of(self.norm(x)), Grid(*x.shape[2:]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: a stage's embedding belongs to the block before it."""
        if match := re.match(r"stages\.(\d+)\.shrink\.", name):
            return sum(self.depths[: int(match[1])])
        if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name):
            return sum(self.depths[: int(match[1])]) + int(match[2]) + 1
        return self.depth + 1
