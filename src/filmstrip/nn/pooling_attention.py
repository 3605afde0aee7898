"""Attention whose queries, keys and values are pooled on their grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import attend
from filmstrip.nn.relative_positions import DecomposedPositions
from filmstrip.protocols import Grid

_EPS = 1e-6


class Pool(nn.Module):
    """A depthwise convolution over each head's grid, then layer normalisation; the first token, a class token,
    is only normalised."""

    def __init__(self, head_dim: int, stride: Sequence[int], kernel: Sequence[int] = (3, 3, 3)) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.conv = nn.Conv3d(head_dim, head_dim, kernel, tuple(stride), padding, groups=head_dim, bias=False)
        self.norm = nn.LayerNorm(head_dim, eps=_EPS)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """``B H 1+N D`` tokens on ``grid`` to ``B H 1+M D`` on a coarser one; returns both."""
        first, x = x[:, :, :1], x[:, :, 1:]
        t, h, w = grid
        y = self.conv(rearrange(x, "b n (t h w) d -> (b n) d t h w", t=t, h=h, w=w))
        pooled = rearrange(y, "(b n) d t h w -> b n (t h w) d", n=x.shape[1])
        return self.norm(torch.cat([first, pooled], dim=2)), Grid(*y.shape[2:])


class PoolingAttention(nn.Module):
    """Multi-head pooling attention over ``1 + N`` tokens, a class token and a grid: ``B 1+N D -> B 1+M outputs``.

    Fan et al. 2021 (MViT), section 3.1: keys and values lie on a grid coarser by ``kv_stride``, queries and so the
    output on one coarser by ``q_stride`` (none: queries are not pooled). Li et al. 2022 (MViTv2) add ``relative``
    position embeddings, except to or from the class token, and ``residual``: the pooled queries, except the class
    token's, are added to the output. ``pool_first`` pools the tokens before projecting them, as in MeMViT: cheaper.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        num_heads: int,
        *,
        grid: Grid,
        q_stride: Sequence[int] | None,
        kv_stride: Sequence[int],
        relative: bool = False,
        residual: bool = False,
        pool_first: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.residual = residual
        self.pool_first = pool_first
        head_dim = outputs // num_heads
        if pool_first:
            self.q, self.k, self.v = (nn.Linear(width, outputs) for _ in range(3))
        else:
            self.qkv = nn.Linear(width, 3 * outputs)
        pooled = width // num_heads if pool_first else head_dim
        self.pool_q = None if q_stride is None else Pool(pooled, q_stride)
        self.pool_k, self.pool_v = Pool(pooled, kv_stride), Pool(pooled, kv_stride)
        self.positions = None
        if relative:
            q_sizes = [n // s for n, s in zip(grid, q_stride or (1, 1, 1))]
            kv_sizes = [n // s for n, s in zip(grid, kv_stride)]
            self.positions = DecomposedPositions(head_dim, [max(both) for both in zip(q_sizes, kv_sizes)])
        self.out = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Attend from ``B 1+N D`` tokens to themselves; returns the output and its grid."""
        q, k, v, q_grid, k_grid = self._pooled(x, grid)
        if self.pool_first:
            q, k, v = self._project(q, self.q), self._project(k, self.k), self._project(v, self.v)
        bias = None
        if self.positions is not None:
            bias = F.pad(self.positions(q[:, :, 1:], q_grid, k_grid), (1, 0, 1, 0))
        return self._result(q, attend(q, k, v, bias=bias)), q_grid

    def _pooled(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Grid, Grid]:
        """Queries, keys, values by heads, ``B H N D``, projected unless ``pool_first``; and their grids."""
        if self.pool_first:
            q = k = v = rearrange(x, "b n (h d) -> b h n d", h=self.num_heads)
        else:
            q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        q, q_grid = (q, grid) if self.pool_q is None else self.pool_q(q, grid)
        k, k_grid = self.pool_k(k, grid)
        v, _ = self.pool_v(v, grid)
        return q, k, v, q_grid, k_grid

    def _project(self, x: Tensor, linear: nn.Linear) -> Tensor:
        """``B H N D`` through a layer over all heads."""
        y = linear(rearrange(x, "b h n d -> b n (h d)"))
        return rearrange(y, "b n (h d) -> b h n d", h=self.num_heads)

    def _result(self, q: Tensor, y: Tensor) -> Tensor:
        """Project heads ``B H N D`` to ``B N outputs``."""
        if self.residual:
            y = y + F.pad(q[:, :, 1:], (0, 0, 1, 0))
        return self.out(rearrange(y, "b h n d -> b n (h d)"))
