"""What it takes to serve a model that writes token by token.

Fu 2024, "Challenges in Deploying Long-Context Transformers": the memory of keys and values decides how many users fit
beside the weights, what each token takes, and how long it takes to change from one user to another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from filmstrip.measure.accelerators import Accelerator
from filmstrip.measure.attention_costs import Sequence
from filmstrip.measure.traced_step import Traced, give_stand_ins
from filmstrip.protocols import NextTokens

BYTES = 2
"""Bytes of a weight, key or value: served in 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A model that writes, counted without running it."""

    weights: int
    """Bytes of all parameters."""
    token: int
    """Bytes that are kept of every token: keys and values of all layers."""
    state: int
    """Bytes that are kept however many there are."""
    products: float
    """Floating-point operations of reading a token, but those of attention."""
    pair: float
    """Floating-point operations of attention for each pair of tokens that the mask allows."""
    layers: int
    """Number of layers that keep something."""
    sequence: Sequence
    """A layer's sizes."""
    heads: int
    """Number of heads of queries."""

    def cache(self, context: int) -> int:
        """Bytes kept of so many tokens."""
        return self.state + self.token * context

    def users(self, context: int, memory: float) -> int:
        """Number of users with so many tokens each that fit into ``memory`` bytes beside the weights."""
        return max(0, int((memory - self.weights) // max(1, self.cache(context))))

    def prefill(self, context: int, rate: float) -> float:
        """Seconds of reading so many tokens at ``rate`` FLOP/s."""
        return (self.products * context + self.pair * context * (context + 1) / 2) / rate

    def decode(self, context: int, bandwidth: float) -> float:
        """Seconds of the next token of one user: all weights, and all that is kept, are read once."""
        return (self.weights + self.cache(context)) / bandwidth

    def switch(self, context: int, machine: Accelerator) -> float | None:
        """Seconds in which one user's memory makes room for another's; none where the rate is not known."""
        return None if machine.host is None else 2 * self.cache(context) / machine.host


def server_of(build: Callable[[], nn.Module]) -> Server | None:
    """The server of the network that ``build`` makes; none if nothing in it writes token by token."""
    with torch.device("meta"):
        network = build()
    writer = next((part for part in network.modules() if isinstance(part, NextTokens)), None)
    if writer is None:
        return None
    with FakeTensorMode(), torch.no_grad():
        give_stand_ins(network)
        network.eval()
        one, two = (_held(writer.new_caches(1, length)) for length in (1, 2))
        short, long = (_reading(writer, length) for length in (128, 256))
        layer = max(writer.new_caches(1, 1), key=lambda cache: _held([cache]))
        kv_width = max((t.shape[1] * t.shape[3] for t in _content(layer) if t.ndim == 4), default=0)
    products = (long.products - short.products) / 128
    pairs = 256 * 257 / 2
    attention: Any = next((p for p in writer.modules() if hasattr(p, "num_heads") and hasattr(p, "head_dim")), None)
    heads = 1 if attention is None else int(attention.num_heads)
    width = int(writer.width if attention is None else heads * attention.head_dim)  # type: ignore[arg-type]
    return Server(
        weights=BYTES * sum(param.numel() for param in network.parameters()),
        token=BYTES * (two - one),
        state=BYTES * (2 * one - two),
        products=products,
        pair=long.attention / pairs,
        layers=len(writer.new_caches(1, 1)),
        sequence=Sequence(length=1, width=width, kv_width=kv_width or width, bytes_each=BYTES),
        heads=heads,
    )


def _reading(writer: NextTokens, length: int) -> Traced:
    tokens = torch.zeros(1, length, dtype=torch.long)
    caches = writer.new_caches(1, length)
    with Traced() as traced:
        writer.next_logits(tokens, caches)
    return traced


def _content(cache: Any) -> Iterator[Tensor]:
    """The tensors of a layer's memory."""
    values = cache if isinstance(cache, tuple) else vars(cache).values()
    yield from (value for value in values if torch.is_tensor(value))


def _held(caches: list[Any]) -> int:
    """Number of values that they hold."""
    return sum(tensor.numel() for cache in caches for tensor in _content(cache))
