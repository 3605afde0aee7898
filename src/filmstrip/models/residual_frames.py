"""Residual convolutions that halve or double a frame level by level, TECO's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class ScaledResidual(nn.Module):
    """Norm, ELU, convolution, twice; a tenth of it is added to the input: ``B C H W``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(32, inputs), inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(math.gcd(32, outputs), outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.conv1(F.elu(self.norm1(x)))
        return self.shortcut(x) + 0.1 * self.conv2(F.elu(self.norm2(y)))


class ResidualEncoder(nn.Sequential):
    """One block at full size, then ``blocks`` after each halving: ``B C H W -> B D h w``."""

    def __init__(self, inputs: int, outputs: int, *, widths: Sequence[int], blocks: int) -> None:
        layers = [nn.Conv2d(inputs, widths[0], 3, padding=1), ScaledResidual(widths[0], widths[0])]
        for above, width in pairwise(widths):
            layers.append(nn.AvgPool2d(2))
            layers += [ScaledResidual(width if i else above, width) for i in range(blocks)]
        super().__init__(*layers, nn.Conv2d(widths[-1], outputs, 1))


class ResidualDecoder(nn.Module):
    """``blocks`` at each size, from the smallest to the full: ``B D h w -> B H W C``; ``widths`` as the encoder's."""

    def __init__(self, inputs: int, outputs: int, *, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1)]  # to the narrowest, as published
        above = widths[0]
        for k, width in enumerate(reversed(widths)):
            layers += [nn.Upsample(scale_factor=2)] if k else []
            layers += [ScaledResidual(width if i else above, width) for i in range(blocks)]
            above = width
        self.body = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[0], eps=1e-6)
        self.out = nn.Linear(widths[0], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Decode."""
        return self.out(self.norm(rearrange(self.body(x), "b c h w -> b h w c")))
