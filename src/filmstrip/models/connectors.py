"""Connectors: visual tokens of an encoder become tokens of a language model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.nn.linear import Linear
from filmstrip.nn.mlp import GELU
from filmstrip.protocols import Grid


@dataclass(frozen=True, kw_only=True)
class ConnectorConfig:
    """The base of connectors' configurations; a system may have one of its own."""

    def build(self, visual_width: int, width: int) -> Connector:
        """The connector, from visual tokens' channels to those of the language model, with fresh weights."""
        raise TypeError(f"{type(self).__name__} does not define build(visual_width, width)")


@dataclass(frozen=True, kw_only=True)
class LinearConnector(ConnectorConfig):
    """One linear layer for every token (LLaVA)."""

    def build(self, visual_width: int, width: int) -> TokenwiseMlp:
        """Build the connector with fresh weights."""
        return TokenwiseMlp(visual_width, width, depth=1)


@dataclass(frozen=True, kw_only=True)
class MlpConnector(ConnectorConfig):
    """Linear layers with GELUs between them for every token (LLaVA-1.5)."""

    depth: Count = 2
    """Number of linear layers."""
    gelu: GELU = "exact"
    """Form of the activation."""

    def build(self, visual_width: int, width: int) -> TokenwiseMlp:
        """Build the connector with fresh weights."""
        return TokenwiseMlp(visual_width, width, depth=self.depth, gelu=self.gelu)


CONNECTORS: dict[str, type[ConnectorConfig]] = {"linear": LinearConnector, "mlp": MlpConnector}
"""Connectors of any encoder and any language model, by name."""


class Connector(nn.Module):
    """The base of connectors: ``B M C`` tokens on a grid to ``B N D``."""

    with_summary = False
    """Whether it also reads the encoder's summary of each time step, if any, in front of that step's tokens."""
    class_layers = 0
    """Number of the encoder's last layers whose class tokens it reads, too: their means over time, in front of all
    tokens, those of the earliest layer first."""

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens ``N`` of a clip whose visual tokens lie on a grid; by default one for each."""
        return grid.t * grid.h * grid.w

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens ``B N D`` of the language model, of visual tokens ``B M C`` in the order of their grid."""
        raise TypeError(f"{type(self).__name__} does not define forward(tokens, grid)")


class TokenwiseMlp(Connector):
    """The same linear layers, with GELUs between them, for every token; weights start as torch's."""

    def __init__(self, visual_width: int, width: int, *, depth: int, gelu: GELU = "exact") -> None:
        super().__init__()
        layers: list[nn.Module] = [Linear(visual_width, width)]
        for _ in range(depth - 1):
            layers += [nn.GELU("tanh" if gelu == "tanh" else "none"), Linear(width, width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """``B M C`` to ``B M D``."""
        return self.layers(tokens)
