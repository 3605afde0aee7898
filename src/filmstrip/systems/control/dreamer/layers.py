"""Layers of DreamerV3: convolutions back to frames, and numbers as two-hot classes."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from filmstrip.nn.normed_layers import EPS, SIDE, ChannelNorm, init_normal, init_uniform, stages_of

BINS, BIN_LIMIT = 255, 20.0
"""Classes of numbers, evenly spaced in symlog space from minus to plus this limit."""


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
            layers += [conv] if last else [conv, ChannelNorm(after, eps=EPS), nn.SiLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Frames ``... 3 H W``, of which 0..1 is meant, float32, from features ``... D``."""
        x = self.first(features.flatten(0, -2)).unflatten(1, (SIDE, SIDE, -1)).movedim(3, 1)
        return self.layers(x).float().unflatten(0, features.shape[:-1]) + 0.5


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
