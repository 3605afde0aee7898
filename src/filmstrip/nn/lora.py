"""Low-rank adaptation of linear layers (Hu et al. 2022): a frozen weight, and a small learnt product beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from filmstrip.nn.linear import Linear, linear

DOWN, UP = "lora_down", "lora_up"
"""Beginnings of the names of the adaptation's parameters in a layer."""


class Lora(Linear):
    """A linear layer whose weight is frozen, with ``alpha / rank * up @ down`` added to it; at first that is zero.

    ``parts`` are names and numbers of outputs of layers that were fused into this one, such as queries, keys and
    values: each of those that are ``adapted`` has a product of its own. The weight keeps its name.

    Raises:
        ValueError: the parts are not the layer's outputs, or none is adapted.
    """

    def __init__(
        self,
        layer: nn.Linear,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        parts: Mapping[str, int] | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        parts = parts or {"all": layer.out_features}
        names = tuple(parts) if adapted is None else tuple(adapted)
        if sum(parts.values()) != layer.out_features or not names or not set(names) <= set(parts):
            raise ValueError(f"parts {dict(parts)}, adapted {names}, are not {layer.out_features} outputs")
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = layer.weight.requires_grad_(False)
        self.bias = layer.bias if layer.bias is None else layer.bias.requires_grad_(False)
        self.sizes, self.names = dict(parts), names
        self.rank, self.alpha = rank, alpha
        self.dropout = nn.Dropout(dropout)
        like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        for name in names:
            down = nn.Parameter(torch.empty(rank, layer.in_features, **like))
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            self.register_parameter(f"{DOWN}_{name}", down)
            self.register_parameter(f"{UP}_{name}", nn.Parameter(torch.zeros(parts[name], rank, **like)))

    def forward(self, x: Tensor) -> Tensor:
        """``... D -> ... outputs``."""
        return super().forward(x) + self._added(x)

    def biased(self, x: Tensor, bias: Tensor) -> Tensor:
        """The same with a bias from elsewhere, ``outputs``."""
        return super().biased(x, bias) + self._added(x)

    def first(self, x: Tensor, outputs: int) -> Tensor:
        """The first so many outputs, without bias."""
        return super().first(x, outputs) + self._added(x)[..., :outputs]

    def _added(self, x: Tensor) -> Tensor:
        """The products, ``... outputs``."""
        narrow, outputs = self.dropout(x), []
        for name, size in self.sizes.items():
            if name in self.names:
                down, up = self.product(name)
                outputs.append(linear(linear(narrow, down), up) * (self.alpha / self.rank))
            else:
                outputs.append(x.new_zeros(1).expand(*x.shape[:-1], size))
        return torch.cat(outputs, dim=-1)

    def product(self, name: str) -> tuple[Tensor, Tensor]:
        """The factors ``down`` (``rank D``) and ``up`` (``outputs rank``) of a part."""
        return getattr(self, f"{DOWN}_{name}"), getattr(self, f"{UP}_{name}")

    def merged(self) -> Linear:
        """A plain layer with the same function."""
        with torch.no_grad():
            added = [
                self.alpha / self.rank * (self.product(name)[1] @ self.product(name)[0])
                if name in self.names
                else self.weight.new_zeros(size, self.in_features)
                for name, size in self.sizes.items()
            ]
            plain = Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
            plain.weight = nn.Parameter(self.weight + torch.cat(added))
            plain.bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone())
        return plain


def is_adaptation(name: str) -> bool:
    """Whether a parameter of this name is one of an adaptation."""
    return name.rpartition(".")[2].startswith((f"{DOWN}_", f"{UP}_"))


def adapted_layers(module: nn.Module) -> Iterator[tuple[str, Lora]]:
    """The adapted layers in a module, with their names."""
    return ((name, part) for name, part in module.named_modules() if isinstance(part, Lora))


def merge(module: nn.Module) -> None:
    """Replace every adapted layer in a module by a plain one with the same function, in place."""
    for name, layer in list(adapted_layers(module)):
        owner, _, last = name.rpartition(".")
        setattr(module.get_submodule(owner), last, layer.merged())
