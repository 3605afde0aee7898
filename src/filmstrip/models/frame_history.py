"""What the frames so far say of the next one: a causal transformer over few tokens a frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate
from filmstrip.nn.attention import KVCache
from filmstrip.nn.block import Block
from filmstrip.nn.masks import block_causal
from filmstrip.nn.positions import sincos_table

Cache = list[KVCache]
"""Keys and values of every block."""


@dataclass(frozen=True, kw_only=True)
class FrameHistoryArchitecture:
    """The configuration of a :class:`FrameHistory`."""

    input_dim: Count
    """Channels of a frame's positions."""
    output_dim: Count
    """Channels of a summary at each of a frame's positions."""
    size: tuple[Count, Count]
    """Positions of a frame (h, w)."""
    stride: Count
    """Positions along each axis that share a token, so that hundreds of frames make a short sequence."""
    num_frames: Count
    """Maximum number of frames."""
    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    given_dim: CountOrZero = 0
    """Channels of what is given with a frame (an action, a label); zero without it."""
    mlp_ratio: Rate = 4.0
    """Width of a feed-forward network, relative to that of its tokens."""


class FrameHistory(nn.Module):
    """TECO's temporal transformer (Yan et al. 2023, equation 3.6): strided convolution, transformer, its transpose.

    A frame's tokens see each other and all frames before, the first of which is a learnt one that starts the
    sequence.

    Raises:
        ValueError: the stride does not divide the size.
    """

    def __init__(self, config: FrameHistoryArchitecture) -> None:
        super().__init__()
        size, stride, width = config.size, config.stride, config.width
        if any(side % stride for side in size):
            raise ValueError(f"a stride of {stride} does not divide frames of {tuple(size)} positions")
        self.num_frames = config.num_frames
        self.size = size
        self.small = tuple(side // stride for side in size)
        self.per_frame = self.small[0] * self.small[1]
        self.down = nn.Conv2d(config.input_dim + config.given_dim, width, stride, stride, bias=False)
        self.start = nn.Parameter(torch.randn(self.per_frame, width) * 0.02)
        self.project = nn.Linear(width, width)
        table = sincos_table((config.num_frames + 1) * self.per_frame, width)
        sines_first = rearrange(table, "n (c two) -> n (two c)", two=2)  # as published
        self.register_buffer("positions", sines_first, persistent=False)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, mlp_ratio=config.mlp_ratio, gelu="quick") for _ in range(config.depth)
        )
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(approximate="tanh"), nn.LayerNorm(width, eps=1e-6))
        self.up = nn.ConvTranspose2d(width, config.output_dim, stride, stride, bias=False)

    def forward(self, frames: Tensor, given: Tensor | None = None, *, cache: Cache | None = None) -> Tensor:
        """Summaries ``B S M W`` after each of the frames (``B S C h w``), for :meth:`spread`.

        ``given`` is ``B S G``. With a cache the frames follow those that it holds.

        Raises:
            ValueError: there are more frames than positions.
        """
        b, s = frames.shape[:2]
        seen = cache[0].length if cache else 0
        frames_seen = max(seen // self.per_frame - 1, 0)
        if frames_seen + s > self.num_frames:
            raise ValueError(f"there are positions for {self.num_frames} frames, {frames_seen + s} were given")
        if given is not None:
            h, w = self.size
            frames = torch.cat([frames, repeat(given.to(frames.dtype), "b s g -> b s g h w", h=h, w=w)], dim=2)
        x = rearrange(self.down(frames.flatten(0, 1)), "(b s) d h w -> b (s h w) d", b=b)
        if not seen:
            x = torch.cat([self.start.to(x.dtype).expand(b, -1, -1), x], dim=1)
        x = self.project(x) + self.positions[seen : seen + x.shape[1]]
        mask = None if seen and s == 1 else block_causal(self.per_frame)  # the newest frame sees everything
        for i, block in enumerate(self.blocks):
            x = block(x, mask=mask, cache=cache[i] if cache else None)
        return rearrange(self.head(x[:, -s * self.per_frame :]), "b (s m) d -> b s m d", s=s)

    def spread(self, summary: Tensor) -> Tensor:
        """Summaries ``B S M W`` over all positions of a frame: ``B S D h w``."""
        b, s = summary.shape[:2]
        x = rearrange(summary, "b s (h w) d -> (b s) d h w", h=self.small[0])
        return self.up(x).unflatten(0, (b, s))

    def new_cache(self, batch: int, num_frames: int) -> Cache:
        """Room for the keys and values of so many frames."""
        first = self.blocks[0].attention
        weight = self.head[0].weight
        size = (batch, first.num_heads, (num_frames + 1) * self.per_frame, first.head_dim)
        return [KVCache(*size, dtype=weight.dtype, device=weight.device) for _ in self.blocks]
