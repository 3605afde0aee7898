"""Attention within windows of a grid, shifted from layer to layer (Liu et al. 2021 and 2022, Swin and Video Swin)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.relative_positions import Extent, RelativeBias


def partition(x: Tensor, window: Sequence[int]) -> Tensor:
    """Split ``B T H W D`` into windows of ``window`` (t, h, w): ``B windows N D``, both in row-major order."""
    p, q, r = window
    return rearrange(x, "b (t p) (h q) (w r) d -> b (t h w) (p q r) d", p=p, q=q, r=r)


def join(windows: Tensor, window: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """The inverse of :func:`partition`, on a grid of ``sizes`` (t, h, w)."""
    (p, q, r), (t, h, w) = window, (size // n for size, n in zip(sizes, window))
    return rearrange(windows, "b (t h w) (p q r) d -> b (t p) (h q) (w r) d", t=t, h=h, w=w, p=p, q=q, r=r)


def fitted(sizes: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> tuple[Extent, Extent]:
    """A window limited to a grid of ``sizes``, and its shift, which is zero along an axis that the window covers."""
    pairs = [(size, 0) if size <= n else (n, s) for size, n, s in zip(sizes, window, shift)]
    return tuple(n for n, _ in pairs), tuple(s for _, s in pairs)


def neighbours(sizes: Sequence[int], window: Extent, shift: Extent, device: torch.device) -> Tensor | None:
    """The attention mask within windows, ``windows N N``, True where allowed; none if everything is.

    A grid is padded to whole windows and cyclically shifted: positions that are not neighbours in the grid, and
    padding, are masked. Regions are numbered along each axis, and attention stays within a region.
    """
    padded = [-(-size // n) * n for size, n in zip(sizes, window)]
    if not any(shift) and padded == list(sizes):
        return None
    parts = []
    for size, full, s in zip(sizes, padded, shift):
        position = (torch.arange(full, device=device) + s) % full
        # Regions: wrapped around by the shift; the rest of the grid; padding.
        parts.append(torch.where(position >= size, 2, (position < s).long()))
    t, h, w = parts
    part = (9 * t[:, None, None] + 3 * h[:, None] + w)[None, ..., None]
    part = partition(part, window)[0, :, :, 0]
    return part[:, :, None] == part[:, None]


class WindowAttention(Attention):
    """Multi-head attention of each position to those of its window, with a learned bias per offset."""

    def __init__(self, width: int, num_heads: int, window: Extent, shift: Extent) -> None:
        super().__init__(width, num_heads)
        self.window = window
        self.shift = shift
        self.relative = RelativeBias(num_heads, window)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """``B T H W D -> B T H W D``; ``visible`` are the :func:`neighbours` on this grid."""
        sizes = x.shape[1:4]
        window, shift = fitted(sizes, self.window, self.shift)
        x = F.pad(x, (0, 0, *(n for size, w in zip(sizes[::-1], window[::-1]) for n in (0, -size % w))))
        padded = x.shape[1:4]
        if any(shift):
            x = x.roll([-s for s in shift], dims=(1, 2, 3))
        windows = partition(x, window)
        count = windows.shape[1]
        q, k, v = rearrange(self.qkv(windows), "b m n (three h d) -> three (b m) h n d", three=3, h=self.num_heads)
        bias = self.relative(window)
        if visible is not None:
            # Windows are merged with the heads, so that the batch shares the bias.
            q, k, v = (rearrange(y, "(b m) h n d -> b (m h) n d", m=count) for y in (q, k, v))
            bias = bias.masked_fill(~visible[:, None], float("-inf")).flatten(0, 1)
        y = rearrange(attend(q, k, v, bias=bias[None]), "b h n d -> b n h d")
        if visible is not None:
            y = rearrange(y, "b n (m h) d -> (b m) n h d", m=count)
        y = join(self.out(rearrange(y, "(b m) n h d -> b m n (h d)", m=count)), window, padded)
        if any(shift):
            y = y.roll(shift, dims=(1, 2, 3))
        t, h, w = sizes
        return y[:, :t, :h, :w]
