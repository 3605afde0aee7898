"""Exponential moving average (EMA) of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of a module's trainable parameters; buffers and frozen weights are not averaged.

    ``average <- decay * average + (1 - decay) * weight``, with the smaller decay ``(1 + n) / (10 + n)`` in the first
    steps, so that the initial weights decay quickly. With ``decay`` none it does nothing.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self._decay = 0.0 if decay is None else decay
        trained = [(name, p.detach()) for name, p in module.named_parameters() if p.requires_grad]
        self._live = {name: p for name, p in trained if decay is not None}
        self.tensors: dict[str, Tensor] = {name: p.clone() for name, p in self._live.items()}
        """The averages, by parameter name."""

    def update(self, step: int) -> None:
        """Update the averages after optimiser step ``step``, counted from 1."""
        if self.tensors:
            weight = 1 - min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.tensors.values()), list(self._live.values()), weight)

    def swap(self) -> None:
        """Exchange weights and averages, in place."""
        for name, live in self._live.items():
            kept = live.clone()
            live.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the context, the module's weights are the averages."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
