"""Layers with norms, as of DreamerV3: hidden layers, perceptrons, and convolutions that halve frames.

Hafner et al., "Mastering Diverse Domains through World Models", first version, 2023: linear layers and convolutions
without bias, layer normalisation, SiLU.
"""

from __future__ import annotations

import itertools
import math

import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.errors import UserError

EPS = 1e-3
"""Number that every norm adds to the variance."""
SIDE = 4
"""Height and width of what the convolutions leave of a frame."""


class Layer(nn.Module):
    """A linear layer without bias, a norm, SiLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.LayerNorm(outputs, eps=EPS)
        init_normal(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        """``... D -> ... outputs``."""
        return self.activated(self.linear(x))

    def part(self, x: Tensor, start: int = 0) -> Tensor:
        """What the linear layer adds for its inputs from ``start`` on, as many as there are, to the sum of all."""
        return F.linear(x, self.linear.weight[:, start : start + x.shape[-1]])

    def activated(self, sums: Tensor) -> Tensor:
        """The output where the linear layer's sums are known."""
        return F.silu(self.norm(sums))


class Perceptron(nn.Module):
    """Hidden layers of one width, then a linear layer whose weights start at ``scale`` times their usual size."""

    def __init__(self, inputs: int, width: int, depth: int, outputs: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*(Layer(width if i else inputs, width) for i in range(depth)))
        self.out = nn.Linear(width if depth else inputs, outputs)
        init_uniform(self.out, scale)

    def forward(self, x: Tensor) -> Tensor:
        """``... D -> ... outputs``, float32."""
        return self.out(self.hidden(x)).float()


class ChannelNorm(nn.LayerNorm):
    """A norm over the channels of ``N C H W``, which are kept last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """``N C H W``."""
        return super().forward(x.movedim(1, 3)).movedim(3, 1)


class FrameEncoder(nn.Module):
    """Convolutions of 4 x 4 that halve the frame until 4 x 4 places are left, with twice the channels each time.

    ``inputs`` are the channels of what it sees: 3, or more of several frames at once.
    """

    def __init__(self, channels: int, size: int, inputs: int = 3) -> None:
        super().__init__()
        stages = stages_of(size)
        widths = [inputs, *(channels * 2**i for i in range(stages))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            conv = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
            init_normal(conv)
            layers += [conv, ChannelNorm(after, eps=EPS), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.width = widths[-1] * SIDE**2

    def forward(self, frames: Tensor) -> Tensor:
        """``N D`` from frames in 0..1, ``N inputs H W``."""
        return self.layers(frames - 0.5).flatten(1)


def stages_of(size: int) -> int:
    """Number of convolutions from frames of a size to 4 x 4 places.

    Raises:
        UserError: the size is not 4 times a power of two.
    """
    stages = round(math.log2(size / SIDE))
    if stages < 1 or SIDE * 2**stages != size:
        raise UserError(
            f"frames of {size} x {size} pixels cannot be halved to 4 x 4: give 32, 64 or another power of two "
            "(--data.reads.env.size 64)"
        )
    return stages


def init_normal(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Truncated-normal weights of the variance that the mean of inputs and outputs asks for."""
    kernel = math.prod(layer.weight.shape[2:])
    mean = kernel * (layer.weight.shape[0] + layer.weight.shape[1]) / 2
    std = mean**-0.5 / 0.87962566103423978  # of a normal that is cut off at two deviations
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_uniform(layer: nn.Linear, scale: float) -> None:
    """Uniform weights of ``scale`` times that variance, and no bias."""
    limit = math.sqrt(3 * scale / ((layer.in_features + layer.out_features) / 2))
    nn.init.uniform_(layer.weight, -limit, limit)
    nn.init.zeros_(layer.bias)
