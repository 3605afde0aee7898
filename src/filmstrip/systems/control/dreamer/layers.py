"""Layers of DreamerV3: hidden layers, perceptrons, convolutions to and from frames, numbers as two-hot classes."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.errors import UserError

EPS = 1e-3
"""Number that every norm adds to the variance."""
SIDE = 4
"""Height and width of what the convolutions leave of a frame."""
BINS, BIN_LIMIT = 255, 20.0
"""Classes of numbers, evenly spaced in symlog space from minus to plus this limit."""


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


class _ChannelNorm(nn.LayerNorm):
    """A norm over the channels of ``N C H W``, which are kept last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, 3)).movedim(3, 1)


class FrameEncoder(nn.Module):
    """Convolutions of 4 x 4 that halve the frame until 4 x 4 places are left, with twice the channels each time."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        stages = stages_of(size)
        widths = [3, *(channels * 2**i for i in range(stages))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            conv = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
            init_normal(conv)
            layers += [conv, _ChannelNorm(after, eps=EPS), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.width = widths[-1] * SIDE**2

    def forward(self, frames: Tensor) -> Tensor:
        """``N D`` from frames in 0..1, ``N 3 H W``."""
        return self.layers(frames - 0.5).flatten(1)


class FrameDecoder(nn.Module):
    """The mirror of the encoder."""

    def __init__(self, inputs: int, channels: int, size: int) -> None:
        super().__init__()
        stages = stages_of(size)
        widths = [*(channels * 2**i for i in reversed(range(stages))), 3]
        self.first = nn.Linear(inputs, widths[0] * SIDE**2)
        init_uniform(self.first, 1.0)
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(itertools.pairwise(widths)):
            last = place == stages - 1
            conv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=last)
            init_normal(conv)
            layers += [conv] if last else [conv, _ChannelNorm(after, eps=EPS), nn.SiLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Frames ``... 3 H W``, of which 0..1 is meant, float32, from features ``... D``."""
        x = self.first(features.flatten(0, -2)).unflatten(1, (SIDE, SIDE, -1)).movedim(3, 1)
        return self.layers(x).float().unflatten(0, features.shape[:-1]) + 0.5


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


def symlog(x: Tensor) -> Tensor:
    """``sign(x) ln(1 + |x|)``."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of :func:`symlog`."""
    return x.sign() * x.abs().expm1()


def expected(logits: Tensor) -> Tensor:
    """The numbers ``...`` that logits of classes ``... 255`` mean: of the mean in symlog space."""
    bins = torch.linspace(-BIN_LIMIT, BIN_LIMIT, BINS, device=logits.device)
    return symexp((logits.float().softmax(dim=-1) * bins).sum(dim=-1))


def two_hot_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy ``...`` of logits ``... 255`` to numbers ``...``, each shared out between its two nearest
    classes."""
    place = (symlog(target.float()).clamp(-BIN_LIMIT, BIN_LIMIT) + BIN_LIMIT) * ((BINS - 1) / (2 * BIN_LIMIT))
    below = place.floor().clamp(max=BINS - 2)
    above = place - below
    both = torch.stack([below, below + 1], dim=-1).long()
    weight = torch.stack([1 - above, above], dim=-1)
    return -(logits.float().log_softmax(dim=-1).gather(-1, both) * weight).sum(dim=-1)


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
