"""What the frames so far say of the next one: a causal transformer over few tokens a frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.nn.attention import KVCache
from filmstrip.nn.block import Block
from filmstrip.nn.masks import block_causal
from filmstrip.nn.positions import sincos_table

Cache = list[KVCache]
"""Keys and values of every block."""


class FrameHistory(nn.Module):
    """TECO's temporal transformer (Yan et al. 2023, equation 3.6): strided convolution, transformer, its transpose.

    A frame's tokens see each other and all frames before, the first of which is a learnt one that starts the
    sequence. ``stride`` places along each axis share a token, so that hundreds of frames make a short sequence; what
    is ``given`` with a frame (an action, a label) joins its channels.

    Raises:
        ValueError: the stride does not divide the size.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        output_dim: int,
        size: Sequence[int],
        stride: int,
        num_frames: int,
        width: int,
        depth: int,
        num_heads: int,
        given_dim: int = 0,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if any(side % stride for side in size):
            raise ValueError(f"a stride of {stride} does not divide frames of {tuple(size)} places")
        self.num_frames = num_frames
        self.size = tuple(size)
        self.small = tuple(side // stride for side in size)
        self.per_frame = self.small[0] * self.small[1]
        self.down = nn.Conv2d(input_dim + given_dim, width, stride, stride, bias=False)
        self.start = nn.Parameter(torch.randn(self.per_frame, width) * 0.02)
        self.project = nn.Linear(width, width)
        table = sincos_table((num_frames + 1) * self.per_frame, width)
        sines_first = rearrange(table, "n (c two) -> n (two c)", two=2)  # as published
        self.register_buffer("positions", sines_first, persistent=False)
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio=mlp_ratio, gelu="quick") for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(approximate="tanh"), nn.LayerNorm(width, eps=1e-6))
        self.up = nn.ConvTranspose2d(width, output_dim, stride, stride, bias=False)

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
        """Summaries ``B S M W`` over all places of a frame: ``B S D h w``."""
        b, s = summary.shape[:2]
        x = rearrange(summary, "b s (h w) d -> (b s) d h w", h=self.small[0])
        return self.up(x).unflatten(0, (b, s))

    def new_cache(self, batch: int, num_frames: int) -> Cache:
        """Room for the keys and values of so many frames."""
        first = self.blocks[0].attention
        weight = self.head[0].weight
        size = (batch, first.num_heads, (num_frames + 1) * self.per_frame, first.head_dim)
        return [KVCache(*size, dtype=weight.dtype, device=weight.device) for _ in self.blocks]
