"""How the weights of transformers start."""

from __future__ import annotations

from torch import nn

STD = 0.02
"""The deviation of what starts at random, as published for ViT and its kin."""


def init_normal(module: nn.Module) -> None:
    """Truncated-normal weights of deviation :data:`STD` and zero biases for linear layers; for ``Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
