"""Sliding-window attention along a sequence, with one global token."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import Attention
from filmstrip.nn.masks import sliding_window


class SlidingWindowAttention(Attention):
    """Each token attends to those up to ``window // 2`` positions away, and to the first one.

    Beltagy et al. 2020 (Longformer). The first token attends to all, with its own projections (``of_first``).
    """

    def __init__(self, width: int, num_heads: int, *, window: int) -> None:
        super().__init__(width, num_heads)
        self.window = window
        self.of_first = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        """``B N D -> B N D``."""
        rest = self.attend(*self._project(x, None), sliding_window(self.window // 2))[:, :, 1:]
        q, k, v = rearrange(self.of_first(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        first = self.attend(q[:, :, :1], k, v)
        return self.out(rearrange(torch.cat([first, rest], dim=2), "b h n d -> b n (h d)"))
