"""A U-Net over a short sequence of vectors, told the time of a diffusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

_GROUPS = 32


class SequenceBlock(nn.Module):
    """Two convolutions over time, the diffusion's time added between them, and a way around: ``B C T -> B C' T``."""

    def __init__(self, channels: int, out_channels: int, time_width: int) -> None:
        super().__init__()
        self.first = _convolution(channels, out_channels)
        self.time = nn.Sequential(nn.Mish(), nn.Linear(time_width, out_channels))
        self.second = _convolution(out_channels, out_channels, zero=True)
        self.around = nn.Conv1d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block; ``time`` is ``B time_width``."""
        return self.second(self.first(x) + self.time(time)[..., None]) + self.around(x)


class TemporalUNet(nn.Module):
    """``B T D -> B T D``, of sequences that are at least as long as there are ``widths``.

    Wang et al. 2023 (PDPP), after Janner et al. 2022 (Diffuser): each level is one step shorter than the one before
    (kernels of two, without stride), because plans are too short to be halved.
    """

    def __init__(self, channels: int, *, widths: Sequence[int] = (256, 512, 1024)) -> None:
        super().__init__()
        width = widths[0]
        self.width = width
        self.min_length = len(widths)
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(zip((channels, *widths), widths)):
            self.downs.append(nn.ModuleList([SequenceBlock(a, b, width), SequenceBlock(b, b, width)]))
            self.downs[-1].append(nn.Conv1d(b, b, 2) if i < len(widths) - 1 else nn.Identity())
        self.middle = nn.ModuleList(SequenceBlock(widths[-1], widths[-1], width) for _ in range(2))
        for a, b in zip(widths[:0:-1], widths[-2::-1]):
            self.ups.append(nn.ModuleList([SequenceBlock(2 * a, b, width), SequenceBlock(b, b, width)]))
            self.ups[-1].append(nn.ConvTranspose1d(b, b, 2))
        self.out = nn.Sequential(_convolution(width, width, zero=True), nn.Conv1d(width, channels, 1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the network to ``B T D`` at diffusion times ``B``.

        Raises:
            ValueError: the sequence is too short.
        """
        if x.shape[1] < self.min_length:
            raise ValueError(f"the sequence has {x.shape[1]} steps, at least {self.min_length} are needed")
        x = rearrange(x, "b t d -> b d t")
        time = self.time(_waves(time, self.width))
        passed = []
        for first, second, shorten in self.downs:
            x = second(first(x, time), time)
            passed.append(x)
            x = shorten(x)
        for block in self.middle:
            x = block(x, time)
        for first, second, lengthen in self.ups:
            x = torch.cat([x, passed.pop()], dim=1)
            x = lengthen(second(first(x, time), time))
        return rearrange(self.out(x), "b d t -> b t d")


def _convolution(channels: int, out_channels: int, *, zero: bool = False) -> nn.Sequential:
    convolution = nn.Conv1d(channels, out_channels, 3, padding=1)
    if zero:
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(_GROUPS, out_channels), out_channels), nn.Mish())


def _waves(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of times ``B`` at speeds from 1 to 1/10,000: ``B width``."""
    speeds = torch.exp(torch.arange(width // 2, device=time.device) * (-math.log(10_000) / (width // 2 - 1)))
    angles = time.float()[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
