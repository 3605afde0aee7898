"""UniFormerV2: an image ViT that is made to see time, by adapters in its blocks and a video token beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.nn.attention import Attention
from filmstrip.nn.conv import channels_first
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import LinearStart, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import Normalise
from filmstrip.protocols import Features, Grid, check_video

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class LocalTemporal(nn.Sequential):
    """Relations of each place to itself in the frames beside: a depthwise convolution over time between linear maps.

    Li et al. 2022 (UniFormerV2), equation 4.
    """

    def __init__(self, width: int, reduction: float) -> None:
        inner = int(width / reduction)
        super().__init__(
            nn.BatchNorm3d(width),
            nn.Conv3d(width, inner, 1),
            nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner),
            nn.Conv3d(inner, width, 1),
        )


class LocalUniBlock(nn.Module):
    """A block of an image ViT over each frame's tokens, with local temporal relations before attention and after.

    ``reduction`` says how much narrower those are inside; without it they are left out.
    """

    def __init__(self, width: int, num_heads: int, *, reduction: float | None, drop_path: float = 0.0) -> None:
        super().__init__()
        self.before, self.after = (None if reduction is None else LocalTemporal(width, reduction) for _ in range(2))
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, gelu="quick")
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B T) 1+N D`` to the same; a frame's first token is its class token."""
        x = self._over_time(x, self.before, grid)
        x = x + self.drop_path(self.attention(self.norm1(x)))
        x = self._over_time(x, self.after, grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _over_time(self, x: Tensor, relations: LocalTemporal | None, grid: Grid) -> Tensor:
        if relations is None:
            return x
        first, places = x[:, :1], rearrange(x[:, 1:], "(b t) (h w) d -> b d t h w", t=grid.t, h=grid.h)
        places = places + self.drop_path(relations(places))
        return torch.cat([first, rearrange(places, "b d t h w -> (b t) (h w) d")], dim=1)


class GlobalUniBlock(nn.Module):
    """A video token looks at all places of all frames, and thinks: ``B 1 D`` from ``B T 1+N D``.

    Equations 6 to 9: positions of places by a depthwise convolution, attention of one query, a feed-forward network.
    """

    def __init__(self, width: int, num_heads: int, *, dropout: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.positions = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, context_width=width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, gelu="quick", dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, token: Tensor, x: Tensor, grid: Grid) -> Tensor:
        """``B 1 D`` and the frames' tokens ``(B T) 1+N D`` to ``B 1 D``."""
        places = rearrange(x[:, 1:], "(b t) (h w) d -> b d t h w", t=grid.t, h=grid.h)
        places = rearrange(places + self.positions(places), "b d t h w -> (b t) (h w) d")
        context = rearrange(torch.cat([x[:, :1], places], dim=1), "(b t) n d -> b (t n) d", t=grid.t)
        token = token + self.drop_path(self.attention(self.norm1(token), context=self.norm_context(context)))
        return token + self.drop_path(self.mlp(self.norm2(token)))


class UniFormerV2(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` out of an image ViT in CLIP's form, whose class token is the clip's.

    ``global_layers`` says after which blocks a video token looks at the tokens; a learnt gate for each channel mixes
    it with the frames' mean class token. ``halve_time`` embeds patches of three frames, every second one. With
    ``start_as_image`` what is added to the image network adds nothing at first.
    """

    def __init__(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        patch_size: int = 16,
        size: int = 224,
        global_layers: Sequence[int] = (8, 9, 10, 11),
        reduction: float | None = 1.5,
        halve_time: bool = True,
        start_as_image: bool = True,
        linear_start: LinearStart = "normal",
        global_dropout: float = 0.5,
        drop_path: float = 0.0,
        global_drop_path: float = 0.0,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        self.width = width
        self.depth = depth
        self.patch = (2 if halve_time else 1, patch_size, patch_size)
        self.size = size
        self.global_layers = tuple(global_layers)
        self.normalise = Normalise(mean, std)
        frames = 3 if halve_time else 1
        self.embed = nn.Conv3d(
            3, width, (frames, patch_size, patch_size), self.patch, (frames // 2, 0, 0), bias=False
        )
        places = (size // patch_size) ** 2
        self.frame_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + places, width) * width**-0.5)
        self.norm_before = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            LocalUniBlock(width, num_heads, reduction=reduction, drop_path=drop_path * i / max(1, depth - 1))
            for i in range(depth)
        )
        count = len(self.global_layers)
        self.video_token = nn.Parameter(torch.zeros(width))
        self.global_blocks = nn.ModuleList(
            GlobalUniBlock(
                width, num_heads, dropout=global_dropout, drop_path=global_drop_path * i / max(1, count - 1)
            )
            for i in range(count)
        )
        self.balance = nn.Parameter(torch.zeros(width))
        init_linear(self, linear_start)
        if start_as_image:
            added = [layer for block in self.global_blocks for layer in (block.attention.out, block.mlp.fc2)]
            local = [block for block in self.modules() if isinstance(block, LocalTemporal)]
            for layer in [*added, *(block[-1] for block in local)]:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; the tokens are the places', the frames' class tokens left out.

        Raises:
            ValueError: the frames are not of the size that the network was built for, or not a multiple of two.
        """
        check_video(video, multiple=self.patch)
        if video.shape[3:] != (self.size, self.size):
            raise ValueError(f"this network was built for frames of {self.size} pixels, got {tuple(video.shape[3:])}")
        x = self.embed(channels_first(self.normalise(video)))
        grid = Grid(*x.shape[2:])
        x = rearrange(x, "b d t h w -> (b t) (h w) d")
        x = torch.cat([repeat(self.frame_token, "d -> b 1 d", b=x.shape[0]), x], dim=1)
        x = self.norm_before(x + self.positions)
        token = self.video_token.repeat(video.shape[0], 1, 1)
        looks = dict(zip(self.global_layers, self.global_blocks))
        seen = []
        for i, block in enumerate(self.blocks):
            x = block(x, grid)
            if i in looks:
                token = looks[i](token, x, grid)
            if layers:
                seen.append(rearrange(x[:, 1:], "(b t) n d -> b (t n) d", t=grid.t))
        gate = self.balance.sigmoid()
        frames = rearrange(x[:, 0], "(b t) d -> b t d", t=grid.t).mean(dim=1)
        tokens = rearrange(x[:, 1:], "(b t) n d -> b (t n) d", t=grid.t)
        return Features(tokens, grid, tuple(seen), ((1 - gate) * token[:, 0] + gate * frames)[:, None])

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the embedding, ``i + 1`` for block ``i`` and the global one after it."""
        if match := re.match(r"blocks\.(\d+)\.", name):
            return int(match[1]) + 1
        if match := re.match(r"global_blocks\.(\d+)\.", name):
            return self.global_layers[int(match[1])] + 1
        return self.depth + 1 if name in ("video_token", "balance") else 0
