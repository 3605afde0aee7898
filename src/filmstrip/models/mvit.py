"""Multiscale vision transformers: few channels on many positions at first, many on few at last (MViT, MViTv2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, ShareBelowOne
from filmstrip.models.resnet3d import PIXEL_MEAN, PIXEL_STD
from filmstrip.nn.conv import channels_first, tokens_of
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import STD, LinearInit, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import Normalise
from filmstrip.nn.pooling_attention import PoolingAttention
from filmstrip.protocols import Features, Grid, Layout, check_video

_KERNEL, _STRIDE, _PADDING = (3, 7, 7), (2, 4, 4), (1, 3, 3)
_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class MViTArchitecture:
    """The configuration of a multiscale transformer."""

    width: Count
    """Channels of a token in the first stage."""
    depth: Count
    """Number of blocks."""
    num_heads: Count = 1
    """Attention heads of a block in the first stage."""
    stages: tuple[CountOrZero, ...]
    """Blocks that halve height and width, counted from 0."""
    kv_stride: tuple[Count, Count, Count]
    """Stride (t, h, w) of keys and values in the first stage."""
    num_frames: Count
    """Frames of a clip."""
    size: Count
    """Height and width of a clip, pixels."""
    summary: Literal["class_token", "mean"] = "class_token"
    """Token that is classified; the mean over positions is an option of the public code."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""


class Plan(NamedTuple):
    """The sizes of one block."""

    width: int
    attention_width: int
    outputs: int
    num_heads: int
    grid: Grid
    """Grid of the input tokens, as far as strides divide it."""
    q_stride: tuple[int, int, int] | None
    kv_stride: tuple[int, int, int]


def plan(sizes: MViTArchitecture, grid: Grid, *, improved: bool) -> Iterator[Plan]:
    """The sizes of all blocks, of which those at ``stages`` halve height and width, from the patches' ``grid`` on.

    There the heads double too. Channels double within their attention (``improved``, MViTv2), or in the feed-forward
    network of the block before (MViT). Keys and values lie on the same grid throughout: their stride shrinks as that
    of the queries has grown.
    """
    width, num_heads, kv_stride = sizes.width, sizes.num_heads, sizes.kv_stride
    for i in range(sizes.depth):
        first = i in sizes.stages
        num_heads *= 2 if first else 1
        attention_width = 2 * width if first and improved else width
        outputs = attention_width if improved else 2 * width if i + 1 in sizes.stages else width
        q_stride = (1, 2, 2) if first else (1, 1, 1) if improved else None
        if first:
            kv_stride = (kv_stride[0], max(kv_stride[1] // 2, 1), max(kv_stride[2] // 2, 1))
        yield Plan(width, attention_width, outputs, num_heads, grid, q_stride, kv_stride)
        width = outputs
        if first:
            grid = Grid(grid.t, grid.h // 2, grid.w // 2)


class MViTBlock(nn.Module):
    """Pooling attention, then a feed-forward network, each on normalised tokens and added to a skip that is pooled
    and widened where they are: ``B 1+N D -> B 1+M outputs``."""

    def __init__(self, sizes: Plan, attention: PoolingAttention, *, drop_path: float = 0.0) -> None:
        super().__init__()
        width, middle, outputs = sizes.width, sizes.attention_width, sizes.outputs
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attention = attention
        self.norm2 = nn.LayerNorm(middle, eps=_EPS)
        self.mlp = MLP(middle, 4 * middle, outputs)
        self.drop_path = DropPath(drop_path)
        self.widens_first = middle != width
        self.widen = nn.Linear(width, outputs) if width != outputs else None
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)) if sizes.q_stride == (1, 2, 2) else None

    def forward(self, x: Tensor, grid: Grid, *memory: object) -> tuple[Tensor, Grid]:
        """Apply the block to tokens on ``grid``; returns the result and its grid. ``memory`` is the attention's."""
        normed = self.norm1(x)
        y, pooled_grid = self.attention(normed, grid, *memory)
        skip = self.widen(normed) if self.widens_first else x
        x = self._pooled(skip, grid) + self.drop_path(y)
        normed = self.norm2(x)
        y = self.mlp(normed)
        skip = self.widen(normed) if self.widen is not None and not self.widens_first else x
        return skip + self.drop_path(y), pooled_grid

    def _pooled(self, x: Tensor, grid: Grid) -> Tensor:
        if self.pool is None:
            return x
        t, h, w = grid
        pooled = self.pool(rearrange(x[:, 1:], "b (t h w) d -> b d t h w", t=t, h=h, w=w))
        return torch.cat([x[:, :1], tokens_of(pooled)], dim=1)


class MViT(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` with a class token; its grid shrinks and its width grows by stages.

    Fan et al. 2021, and with ``improved`` Li et al. 2022: relative positions instead of absolute ones (separate for
    space and time), pooled queries added to what they attend to, and channels that double within attention.
    """

    def __init__(
        self,
        sizes: MViTArchitecture,
        *,
        improved: bool = True,
        mean: Sequence[float] = PIXEL_MEAN,
        std: Sequence[float] = PIXEL_STD,
    ) -> None:
        super().__init__()
        width, depth = sizes.width, sizes.depth
        self.depth = depth
        self.clip = (sizes.num_frames, sizes.size)
        self.improved = improved
        self.summary = sizes.summary
        self.normalise = Normalise(mean, std)
        self.embed = nn.Conv3d(3, width, _KERNEL, _STRIDE, _PADDING)
        grid = Grid(sizes.num_frames // _STRIDE[0], sizes.size // _STRIDE[1], sizes.size // _STRIDE[2])
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        if not improved:
            self.place_positions = nn.Parameter(torch.zeros(1, grid.h * grid.w, width))
            self.time_positions = nn.Parameter(torch.zeros(1, grid.t, width))
            self.class_position = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            MViTBlock(block, self._attention(i, block), drop_path=sizes.drop_path * i / max(1, depth - 1))
            for i, block in enumerate(plan(sizes, grid, improved=improved))
        )
        self.width = self.blocks[-1].mlp.fc2.out_features
        self.norm = nn.LayerNorm(self.width, eps=_EPS)
        init_linear(self, sizes.linear_init)
        self.apply(_init_convolution)
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=STD)

    def _attention(self, index: int, sizes: Plan) -> PoolingAttention:
        """The attention of one block."""
        return PoolingAttention(
            sizes.width,
            sizes.attention_width,
            sizes.num_heads,
            grid=sizes.grid,
            q_stride=sizes.q_stride,
            kv_stride=sizes.kv_stride,
            relative=self.improved,
            residual=self.improved,
        )

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each block's tokens, on grids and widths of its own.

        Raises:
            ValueError: the clip is not of the size that the network was built for.
        """
        tokens, grid = self._embedded(video)
        seen = []
        for block in self.blocks:
            tokens, grid = block(tokens, grid)
            if layers:
                seen.append(tokens[:, 1:])
        return self._features(tokens, grid, seen)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the embedding, ``i + 1`` for block ``i``."""
        block = re.match(r"blocks\.(\d+)\.", name)
        if block:
            return int(block[1]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0

    def layouts(self) -> tuple[Layout, ...]:
        """The SlowFast code base's."""
        return (Layout(name="SlowFast", rules=_PUBLISHED, after=(r"head\..*",)),)

    def _features(self, tokens: Tensor, grid: Grid, layers: Sequence[Tensor]) -> Features:
        """The features of the last block's tokens, ``B 1+N D``."""
        tokens = self.norm(tokens)
        summary = tokens[:, :1] if self.summary == "class_token" else None
        return Features(tokens[:, 1:], grid, tuple(layers), summary)

    def _embedded(self, video: Tensor) -> tuple[Tensor, Grid]:
        """Class token and patches with their positions, ``B 1+N D``, and the grid of the patches."""
        check_video(video)
        frames, size = self.clip
        if (video.shape[1], *video.shape[3:]) != (frames, size, size):
            raise ValueError(
                f"this network was built for clips of {frames} x {size} x {size}, got "
                f"{video.shape[1]} x {video.shape[3]} x {video.shape[4]}: cut clips of the size that it was built for"
            )
        x = self.embed(channels_first(self.normalise(video)))
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens_of(x)], dim=1)
        grid = Grid(*x.shape[2:])
        if not self.improved:
            time = self.time_positions.repeat_interleave(grid.h * grid.w, dim=1)
            positions = time + self.place_positions.repeat(1, grid.t, 1)
            tokens = tokens + torch.cat([self.class_position, positions], dim=1)
        return tokens, grid


_PUBLISHED = (
    (r"^encoder\.", ""),
    (r"^embed\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^place_positions$", "pos_embed_spatial"),
    (r"^time_positions$", "pos_embed_temporal"),
    (r"^class_position$", "pos_embed_class"),
    (r"\.attention\.(pool|compress)_([qkv])\.conv\.", r".attn.\1_\2."),
    (r"\.attention\.pool_([qkv])\.norm\.", r".attn.norm_\1."),
    (r"\.attention\.compress_([kv])\.norm\.", r".attn.norm_compress_\1."),
    (r"\.attention\.positions\.time$", ".attn.rel_pos_t"),
    (r"\.attention\.positions\.height$", ".attn.rel_pos_h"),
    (r"\.attention\.positions\.across$", ".attn.rel_pos_w"),
    (r"\.attention\.memory_time$", ".attn.rel_pos_mem_t"),
    (r"\.attention\.memory_height$", ".attn.rel_pos_mem_h"),
    (r"\.attention\.memory_across$", ".attn.rel_pos_mem_w"),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.widen\.", ".proj."),
    (r"^head\.", "head.projection."),
)
"""Ours to theirs, those of memory among them."""


def _init_convolution(module: nn.Module) -> None:
    """Truncated-normal weights and zero biases for 3D convolutions; for ``Module.apply``."""
    if isinstance(module, nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
