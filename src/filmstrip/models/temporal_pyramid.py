"""A pyramid of sequences over time, each half as long as the one before (Zhang et al. 2022, ActionFormer)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import attend
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.masks import Mask, local, present
from filmstrip.nn.mlp import MLP
from filmstrip.nn.positions import sincos_table

SCALE = 1e-4
"""What a residual branch is first multiplied by, channel by channel (Touvron et al. 2021)."""


class Level(NamedTuple):
    """One level of a pyramid: ``features`` are ``B T D``, and ``valid`` (``B T``) says where there is video."""

    features: Tensor
    valid: Tensor


class MaskedConv(nn.Conv1d):
    """A convolution along time, padded to keep the length, that sees zeros where there is no video."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``B T D -> B T/stride outputs``."""
        y = super().forward(rearrange(x.masked_fill(~valid[..., None], 0.0), "b t d -> b d t"))
        return rearrange(y, "b d t -> b t d")


class ConvAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come from depthwise convolutions, ``stride`` rows apart."""

    def __init__(self, width: int, num_heads: int, *, stride: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.convs = nn.ModuleList(MaskedConv(width, width, stride=stride, groups=width) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor, mask: Mask) -> Tensor:
        """``B T D -> B T/stride D``; ``mask`` is of the shorter sequence."""
        q, k, v = (
            rearrange(project(norm(conv(x, valid))), "b t (h d) -> b h t d", h=self.num_heads)
            for conv, norm, project in zip(self.convs, self.norms, self.projections)
        )
        return self.out(rearrange(attend(q, k, v, mask), "b h t d -> b t (h d)"))


class PyramidBlock(nn.Module):
    """A pre-norm transformer block with :class:`ConvAttention`: ``B T D -> B T/stride D``."""

    def __init__(self, width: int, num_heads: int, *, stride: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.stride = stride
        self.norm1 = nn.LayerNorm(width)
        self.attention = ConvAttention(width, num_heads, stride=stride)
        self.scale1 = nn.Parameter(torch.full((width,), SCALE))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, dropout=dropout)
        self.scale2 = nn.Parameter(torch.full((width,), SCALE))
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, valid: Tensor, mask: Mask) -> Tensor:
        """Apply the block; ``valid`` is ``B T``, of the input."""
        attended = self.dropout(self.attention(self.norm1(x), valid, mask))
        x = self._shortened(x, valid) + self.drop_path(self.scale1 * attended)
        return x + self.drop_path(self.scale2 * self.dropout(self.mlp(self.norm2(x))))

    def _shortened(self, x: Tensor, valid: Tensor) -> Tensor:
        """The largest of three neighbours, of those where there is video."""
        if self.stride == 1:
            return x
        x = rearrange(x.masked_fill(~valid[..., None], float("-inf")), "b t d -> b d t")
        x = rearrange(F.max_pool1d(x, self.stride + 1, self.stride, self.stride // 2), "b d t -> b t d")
        return x.masked_fill(~valid[:, :: self.stride, None], 0.0)


class TemporalPyramid(nn.Module):
    """Convolutions, a stem of attention at full length, and for each further level a block that halves the length.

    ``windows`` says for each level how many rows, half of them on either side, a row attends to; none: all. What
    stands in padding reaches no other row.
    """

    def __init__(
        self,
        *,
        feature_width: int,
        width: int,
        num_heads: int,
        windows: Sequence[int | None],
        num_convs: int = 2,
        stem: int = 2,
        positions: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.windows = tuple(windows)
        self.positions = positions
        widths = [feature_width] + [width] * num_convs
        self.convs = nn.ModuleList(MaskedConv(a, b) for a, b in pairwise(widths))
        self.conv_norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.convs)

        def block(stride: int) -> PyramidBlock:
            return PyramidBlock(width, num_heads, stride=stride, dropout=dropout, drop_path=drop_path)

        self.stem = nn.ModuleList(block(1) for _ in range(stem))
        self.branch = nn.ModuleList(block(2) for _ in self.windows[1:])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.windows)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, sequence: Tensor, length: Tensor) -> list[Level]:
        """The levels of ``B T D`` features, finest first; of each row the first ``length`` (``B``) count."""
        coarsest = 2 ** len(self.branch)
        x = F.pad(sequence, (0, 0, 0, -sequence.shape[1] % coarsest))
        valid = torch.arange(x.shape[1], device=x.device) < length[:, None]
        for conv, norm in zip(self.convs, self.conv_norms):
            x = norm(conv(x, valid)).relu()
        if self.positions:
            _, places, width = x.shape
            x = x + sincos_table(places, width).to(x) / width**0.5
        mask = self._mask(0, valid)
        for block in self.stem:
            x = block(x, valid, mask)
        levels = [Level(self.norms[0](x), valid)]
        for i, block in enumerate(self.branch, start=1):
            shorter = valid[:, ::2]
            x, valid = block(x, valid, self._mask(i, shorter)), shorter
            levels.append(Level(self.norms[i](x), valid))
        return levels

    def _mask(self, level: int, valid: Tensor) -> Mask:
        window = self.windows[level]
        return present(valid) if window is None else local(window // 2) & present(valid)
