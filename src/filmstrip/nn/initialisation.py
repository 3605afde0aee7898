"""Weight initialisation of transformers."""

from __future__ import annotations

from typing import Literal

from torch import nn

STD = 0.02
"""Standard deviation of random initial weights, as published for ViT and its descendants."""

LinearInit = Literal["normal", "glorot"]
"""Initialisation of linear layers: :func:`init_normal` or :func:`init_glorot`.

The former is published for most video transformers, whose width is 768 and whose weights come from an image network.
In a narrow network trained from scratch it leaves attention scores near zero for hundreds of steps.
"""


def init_normal(module: nn.Module) -> None:
    """Truncated-normal weights of standard deviation :data:`STD` and zero biases for linear layers; for
    ``Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_glorot(module: nn.Module) -> None:
    """Glorot-uniform weights (Glorot & Bengio 2010) and zero biases for linear layers; for ``Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_linear(network: nn.Module, start: LinearInit) -> None:
    """Initialise all linear layers of a network, in place."""
    network.apply({"normal": init_normal, "glorot": init_glorot}[start])
