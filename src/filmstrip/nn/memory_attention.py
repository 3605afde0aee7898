"""Pooling attention that also attends to earlier clips, as compressed keys and values (Wu et al. 2022, MeMViT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import attend
from filmstrip.nn.pooling_attention import Pool, PoolingAttention
from filmstrip.nn.relative_positions import decomposed_scores, table_between
from filmstrip.protocols import Grid


class LayerMemory:
    """One layer's memory of the last ``length`` clips: pooled keys and values before projection, ``B 1+M D`` each.

    All but the newest are compressed; they are detached from the graph.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def push(self, keys: Tensor, values: Tensor) -> None:
        """Append the newest clip's, and drop the oldest when there are more than ``length``."""
        self.keys.append(keys.detach())
        self.values.append(values.detach())
        del self.keys[: -self.length], self.values[: -self.length]


class MemoryAttention(PoolingAttention):
    """Pooling attention before projection, with keys and values of up to ``length`` earlier clips besides its own.

    Each clip is compressed once, when the next one arrives, by learned convolutions of stride ``compress`` (t, h, w);
    older ones stay as they are (pipelined), so that the cost of a clip does not depend on the video's length. Memory
    has its own relative positions, counted in time from its newest frame.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        num_heads: int,
        *,
        grid: Grid,
        q_stride: Sequence[int],
        kv_stride: Sequence[int],
        length: int,
        compress: tuple[int, int, int] = (4, 2, 2),
    ) -> None:
        super().__init__(
            width,
            outputs,
            num_heads,
            grid=grid,
            q_stride=q_stride,
            kv_stride=kv_stride,
            relative=True,
            residual=True,
            pool_first=True,
        )
        if grid.t % compress[0]:
            raise ValueError(f"{grid.t} temporal positions are not a multiple of the stride {compress[0]}")
        kernel = tuple(2 * s - 1 for s in compress)
        self.compress = compress
        self.compress_k, self.compress_v = Pool(width, compress, kernel), Pool(width, compress, kernel)
        size, head_dim = grid.h // q_stride[1], outputs // num_heads
        self.memory_time = nn.Parameter(torch.empty((length + 1) * grid.t - 1, head_dim))
        self.memory_height, self.memory_across = (nn.Parameter(torch.empty(2 * size - 1, head_dim)) for _ in "hw")
        for table in (self.memory_time, self.memory_height, self.memory_across):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(
        self, x: Tensor, grid: Grid, memory: LayerMemory | None = None, same_video: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        """Attend from ``B 1+N D`` tokens to themselves and to ``memory``, to which they are then added.

        ``same_video`` (``B clips``) marks the clips in memory that belong to the sample's video; others are masked.
        """
        if memory is None:
            return super().forward(x, grid)
        q, k, v, q_grid, k_grid = self._pooled(x, grid)
        k, v = (rearrange(y, "b h n d -> b n (h d)") for y in (k, v))
        q = self._project(q, self.q)
        keys, values, seen = [k], [v], len(memory.keys)
        bias = F.pad(self.positions(q[:, :, 1:], q_grid, k_grid), (1, 0, 1, 0))
        if seen:
            memory_grid = self._compress(memory, k_grid)
            keys, values = [*memory.keys, k], [*memory.values, v]
            past = self._memory_bias(q, q_grid, memory_grid, seen)
            if same_video is not None:
                positions = past.shape[3] // seen
                past = past.masked_fill(~same_video.repeat_interleave(positions, dim=1)[:, None, None], float("-inf"))
            bias = torch.cat([past, bias], dim=3)
            memory.keys[-1], memory.values[-1] = memory.keys[-1].detach(), memory.values[-1].detach()
        memory.push(k, v)
        k, v = (
            rearrange(linear(torch.cat(parts, dim=1)), "b n (h d) -> b h n d", h=self.num_heads)
            for linear, parts in ((self.k, keys), (self.v, values))
        )
        return self._result(q, attend(q, k, v, bias=bias)), q_grid

    def _compress(self, memory: LayerMemory, grid: Grid) -> Grid:
        """Replace the newest clip's keys and values by the compressed ones; returns their grid."""
        keys, small = self.compress_k(memory.keys[-1][:, None], grid)
        values, _ = self.compress_v(memory.values[-1][:, None], grid)
        memory.keys[-1], memory.values[-1] = keys[:, 0], values[:, 0]
        return small

    def _memory_bias(self, q: Tensor, q_grid: Grid, grid: Grid, seen: int) -> Tensor:
        """Position bias of ``seen`` clips on ``grid``, oldest first, ``B H 1+Q seen(1+M)``; each begins with a class
        token."""
        i = torch.arange(q_grid.t, device=q.device)
        age = torch.arange(seen * grid.t - 1, -1, -1, device=q.device)
        time = self.memory_time[i[:, None] + self.compress[0] * age]
        height = table_between(self.memory_height, q_grid.h, grid.h)
        across = table_between(self.memory_across, q_grid.w, grid.w)
        scores = decomposed_scores(q[:, :, 1:], q_grid, time, height, across)
        scores = rearrange(scores, "b h n (clips m) -> b h n clips m", clips=seen)
        return F.pad(scores, (1, 0, 0, 0, 1, 0)).flatten(3)
