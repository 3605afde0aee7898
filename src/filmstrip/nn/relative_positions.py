"""Relative position embeddings: terms added to attention scores by the offset of query and key."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Extent = tuple[int, int, int]


class DecomposedPositions(nn.Module):
    """A vector per offset along time, height and width; a query's product with their sum is added to its scores.

    Li et al. 2022 (MViTv2), section 4.1: ``O(t + h + w)`` parameters for a grid of ``t h w`` positions. Queries and
    keys may lie on grids of different resolution; offsets are counted in steps of the finer one. On grids larger than
    ``sizes`` (t, h, w) the vectors are interpolated.
    """

    def __init__(self, head_dim: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.time, self.height, self.across = (nn.Parameter(torch.empty(2 * n - 1, head_dim)) for n in sizes)
        for table in self.parameters():
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, q: Tensor, q_grid: Sequence[int], k_grid: Sequence[int]) -> Tensor:
        """The term added to the scores of ``B H Q D`` queries, ``B H Q K``; both grids in row-major order."""
        tables = (self.time, self.height, self.across)
        per_axis = [table_between(table, *sizes) for table, *sizes in zip(tables, q_grid, k_grid)]
        return decomposed_scores(q, q_grid, *per_axis)


def table_between(table: Tensor, queries: int, keys: int) -> Tensor:
    """The vector of the offset of each pair of query and key along one axis, ``Q K D``."""
    finest = max(queries, keys)
    if len(table) != 2 * finest - 1:
        table = F.interpolate(table.T[None], size=2 * finest - 1, mode="linear")[0].T
    i = torch.arange(queries, device=table.device) * max(keys / queries, 1.0)
    j = torch.arange(keys, device=table.device) * max(queries / keys, 1.0)
    last = (keys - 1) * max(queries / keys, 1.0)
    return F.embedding((i[:, None] - j + last).long(), table)


def decomposed_scores(q: Tensor, q_grid: Sequence[int], time: Tensor, height: Tensor, across: Tensor) -> Tensor:
    """``B H Q K`` products of ``B H Q D`` queries with the offset vectors to a grid of keys, ``Q K D`` per axis."""
    t, h, w = q_grid
    q = rearrange(q, "b n (t h w) d -> b n t h w d", t=t, h=h, w=w)
    along_t = torch.einsum("bnthwd,tkd->bnthwk", q, time)[..., :, None, None]
    along_h = torch.einsum("bnthwd,hkd->bnthwk", q, height)[..., None, :, None]
    along_w = torch.einsum("bnthwd,wkd->bnthwk", q, across)[..., None, None, :]
    return rearrange(along_t + along_h + along_w, "b n t h w kt kh kw -> b n (t h w) (kt kh kw)")


class RelativeBias(nn.Module):
    """A learned bias per head and offset within a window of ``t h w`` positions (Liu et al. 2021, Swin)."""

    def __init__(self, num_heads: int, window: Extent) -> None:
        super().__init__()
        self.window = window
        self.bias = nn.Parameter(torch.empty(num_heads, *(2 * n - 1 for n in window)))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, window: Extent | None = None) -> Tensor:
        """The bias added to the scores within a window, ``H N N``; it may be smaller than the learned one."""
        window, device = window or self.window, self.bias.device
        which = torch.zeros(1, 1, dtype=torch.int64, device=device)
        for size, full in zip(window, self.window):
            i = torch.arange(size, device=device)
            offsets = i[:, None] - i + (full - 1)
            # Row-major in the positions and in the learned offsets: ``(N n) (N n)`` from ``N N`` and ``n n``.
            which = rearrange(which[..., None, None] * (2 * full - 1) + offsets, "q k n m -> (q n) (k m)")
        return rearrange(F.embedding(which, self.bias.flatten(1).T), "q k h -> h q k")
