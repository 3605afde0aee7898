"""Causal self-attention, to all earlier positions or a regular subset of them, with a cache for sampling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.masks import Mask, causal
from filmstrip.nn.ring_attention import ring_attention
from filmstrip.protocols import RingOfProcesses

_CAUSAL = causal()


@dataclass(frozen=True)
class Pattern:
    """The positions that a position attends to: itself and every ``stride``-th before it, within its own ``block``
    of consecutive positions, at most the nearest ``reach`` of them. By default every earlier position.

    In a grid that is flattened in raster order these are lines along an axis (Ho et al. 2019), and the local and
    strided halves of sparse attention (Child et al. 2019).

    Raises:
        ValueError: a block does not hold a whole number of strides.
    """

    stride: int = 1
    block: int | None = None
    reach: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None and self.block % self.stride:
            raise ValueError(f"block {self.block} must be a whole number of strides, a multiple of {self.stride}")

    def seen(self, position: int) -> slice:
        """The positions that ``position`` attends to, itself the last."""
        first = 0 if self.block is None else position - position % self.block
        if self.reach is not None:
            first = max(first, position - (self.reach - 1) * self.stride)
        return slice(first + (position - first) % self.stride, position + 1, self.stride)

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether each query position attends to each key position, elementwise."""
        back = query - key
        seen = (back >= 0) & (back % self.stride == 0)
        if self.block is not None:
            seen = seen & (query // self.block == key // self.block)
        return seen if self.reach is None else seen & (back < self.reach * self.stride)

    def seen_by(self, position: Tensor, room: int) -> Attended:
        """The same for a position (``1``, int64) known only on the device, in a cache of ``room`` positions."""
        most = -(-min(self.block or room, room) // self.stride)
        most = min(most, self.reach or most)
        if most == room:
            return Attended(position, None, torch.arange(room, device=position.device) <= position)
        index = position - self.stride * torch.arange(most, device=position.device)
        first = 0 if self.block is None else position - position % self.block
        return Attended(position, index.clamp(min=0), index >= first)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of ``B H N D`` queries, keys and values; the cost is that of the attended pairs alone."""
        positions = q.shape[2]
        block = self.block or -(-positions // self.stride) * self.stride
        # No position attends to the padding: it comes last.
        q, k, v = (F.pad(x, (0, 0, 0, -positions % block)) for x in (q, k, v))
        shape = {"m": block // self.stride, "s": self.stride}
        q, k, v = (rearrange(x, "b h (i m s) d -> (b i s) h m d", **shape) for x in (q, k, v))
        y = _attend_line(q, k, v, self.reach)
        i = -(-positions // block)
        return rearrange(y, "(b i s) h m d -> b h (i m s) d", i=i, s=self.stride)[:, :, :positions]


@dataclass(frozen=True)
class Blocks:
    """Patterns of whole blocks of ``size`` consecutive positions.

    A position attends to all positions up to its own in the blocks that any pattern allows for its block.
    """

    size: int
    patterns: tuple[Pattern, ...]

    def seen(self, position: int) -> list[int]:
        """The positions that ``position`` attends to, itself the last."""
        own = position // self.size
        blocks = sorted({block for pattern in self.patterns for block in range(own + 1)[pattern.seen(own)]})
        return [n for block in blocks for n in range(block * self.size, min((block + 1) * self.size, position + 1))]

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether each query position attends to each key position, elementwise."""
        blocks = (pattern.sees(query // self.size, key // self.size) for pattern in self.patterns)
        return reduce(or_, blocks) & (key <= query)

    def seen_by(self, position: Tensor, room: int) -> Attended:
        """The same for a position (``1``, int64) known only on the device, in a cache of ``room`` positions."""
        return Attended(position, None, self.sees(position, torch.arange(room, device=position.device)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of ``B H N D`` queries, keys and values, each position to those that its pattern allows."""
        return attend(q, k, v, _mask_of(self))


@cache
def _mask_of(blocks: Blocks) -> Mask:
    return Mask(lambda b, h, q, k: blocks.sees(q, k))


class Attended(NamedTuple):
    """The positions that one position attends to, with shapes independent of the position."""

    position: Tensor
    """The attending position, ``1`` int64."""
    index: Tensor | None
    """Cache positions to gather, ``M``; None for the whole cache."""
    mask: Tensor
    """Positions that are attended to, ``M`` bool."""


def _attend_line(q: Tensor, k: Tensor, v: Tensor, reach: int | None) -> Tensor:
    """Causal attention along ``B H N D``, to the nearest ``reach`` positions if that is set."""
    positions = q.shape[2]
    if reach is None or reach >= positions:
        return attend(q, k, v, _CAUSAL)
    # In chunks of ``reach`` positions: each attends to its own chunk and the one before.
    q, k, v = (F.pad(x, (0, 0, 0, -positions % reach)) for x in (q, k, v))
    head = attend(*(x[:, :, :reach] for x in (q, k, v)), _CAUSAL)
    rest = rearrange(q[:, :, reach:], "b h (c n) d -> (b c) h n d", n=reach)
    pairs = (rearrange(x.unfold(2, 2 * reach, reach), "b h c d n -> (b c) h n d") for x in (k, v))
    i, j = torch.arange(reach, device=q.device)[:, None], torch.arange(2 * reach, device=q.device)
    y = attend(rest, *pairs, allowed=(j > i) & (j <= i + reach))
    y = rearrange(y, "(b c) h n d -> b h (c n) d", b=len(q))
    return torch.cat([head, y], dim=2)[:, :, :positions]


class CausalAttention(Attention):
    """Multi-head attention of each position to the earlier ones that a pattern allows.

    Queries, keys and values have no biases. A cache is ``2 B H room D``: keys and values of the positions so far.
    """

    def __init__(self, width: int, num_heads: int, pattern: Pattern | Blocks) -> None:
        super().__init__(width, num_heads, qkv_bias="none")
        self.pattern = pattern
        self.ring: RingOfProcesses | None = None
        """Processes that share the positions in training; none if one has all."""

    def new_cache(self, batch: int, room: int) -> Tensor:
        """An empty cache for ``batch`` sequences of up to ``room`` positions, in the weights' dtype and device."""
        # Zeros, since masked attention multiplies what it masks by zero: it must be finite.
        return self.out.weight.new_zeros(2, batch, self.num_heads, room, self.head_dim)

    def forward(self, x: Tensor, cache: Tensor | None = None) -> Tensor:
        """``B N D -> B N D``, all positions at once; fills the first ``N`` positions of a cache."""
        q, k, v = self._project(x, None)
        if cache is not None:
            cache[0, :, :, : x.shape[1]], cache[1, :, :, : x.shape[1]] = k, v
        if self.ring is not None and self.training:
            rule = None if self.pattern == Pattern() else lambda q, k: self.pattern.sees(q[:, None], k)[None]
            y = ring_attention(q, k, v, self.ring, rule=rule)
        else:
            y = self.pattern.attend(q, k, v)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))

    def step(self, x: Tensor, cache: Tensor, at: int | Attended) -> Tensor:
        """``B D -> B D`` for one position, which attends to itself and to the cache; updates the cache in place.

        An integer position gathers only what it attends to; as :class:`Attended`, shapes are static.
        """
        q, new = self.qkv(x).view(len(x), 3, 1, self.num_heads, self.head_dim).transpose(2, 3).split((1, 2), dim=1)
        new = new.transpose(0, 1)
        if isinstance(at, int):
            cache[:, :, :, at : at + 1] = new
            keys, values = cache[:, :, :, self.pattern.seen(at)]
            y = attend(q[:, 0], keys, values)
        else:
            cache.index_copy_(3, at.position, new)
            keys, values = cache if at.index is None else cache.index_select(3, at.index)
            y = attend(q[:, 0], keys, values, allowed=at.mask[None])
        return self.out(y.flatten(1))
