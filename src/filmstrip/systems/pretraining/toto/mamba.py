"""Mamba, the comparator without attention: selective state spaces that predict the next token.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from filmstrip.bounds import Count, Rate
from filmstrip.models.decoder import DecoderOutput, LanguageModel
from filmstrip.nn.initialisation import STD
from filmstrip.nn.linear import Linear

_CHUNK = 64
"""Number of positions whose states are held at once."""


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """Sizes of a Mamba."""

    vocab_size: Count
    """Number of different tokens."""
    width: Count
    """Dimension of a token."""
    depth: Count
    """Number of blocks."""
    state_dim: Count = 16
    """Number of states of a channel."""
    kernel: Count = 4
    """Width of the convolutions over positions."""
    expand: Count = 2
    """Number of inner channels, in multiples of the width."""
    tied: bool = True
    """Whether the output layer shares its weights with the embedding."""
    norm_eps: Rate = 1e-5
    """Constant added to the mean square in normalisations."""


def scan(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    """States ``h_t = decay_t * h_(t-1) + inputs_t`` of all ``N`` positions, ``B N ...``, from ``h_-1 = state``.

    In parallel: after round ``k`` each position has summed up the ``2^k`` before it (Hillis and Steele 1986). Decays
    are at most one, so that no product of them overflows.
    """
    inputs = torch.cat([inputs[:, :1] + decay[:, :1] * state[:, None], inputs[:, 1:]], dim=1)
    reach = 1
    while reach < inputs.shape[1]:
        earlier = decay[:, reach:] * inputs[:, :-reach]
        inputs = torch.cat([inputs[:, :reach], inputs[:, reach:] + earlier], dim=1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        reach *= 2
    return inputs


def scan_in_turn(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    """The same, position after position: many small operations, which move a tenth of the memory."""
    states = []
    for factor, added in zip(decay.unbind(dim=1), inputs.unbind(dim=1)):
        state = torch.addcmul(added, factor, state)
        states.append(state)
    return torch.stack(states, dim=1)


def selective_scan(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``B N E`` and the last state ``B E S`` of a state space that its input controls (equation 2 there).

    Inputs ``x`` and step sizes ``step`` are ``B N E``, the negative rates ``a`` ``E S``, input and output weights
    ``b`` and ``c`` ``B N S``, all float32. States exist for a chunk of positions at a time, in the backward pass too.
    """
    outputs = []
    for part in zip(*(v.split(_CHUNK, dim=1) for v in (x, step, b, c))):
        if torch.is_grad_enabled():
            y, state = checkpoint(_chunk, a, state, *part, use_reentrant=False)
        else:
            y, state = _chunk(a, state, *part)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _chunk(a: Tensor, state: Tensor, x: Tensor, step: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    decay = (step[..., None] * a).exp()
    run = scan_in_turn if x.device.type == "cpu" else scan  # a CPU waits for memory, a GPU for each operation
    states = run(decay, (step * x)[..., None] * b[:, :, None], state)
    return (states @ c[..., None])[..., 0], states[:, -1]


class MambaCache:
    """What a block remembers: the inputs under its convolution, and its state."""

    def __init__(self, window: Tensor, state: Tensor) -> None:
        self.window = window
        """Inner inputs of the last ``kernel - 1`` positions, ``B kernel-1 E``."""
        self.state = state
        """States after the last position, ``B E S``."""


class MambaBlock(nn.Module):
    """A gated selective state space behind a short causal convolution, on normalised tokens and added to them."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        inner = config.expand * config.width
        self.inner, self.state_dim = inner, config.state_dim
        self.rank = -(-config.width // 16)
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.input_and_gate = Linear(config.width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, config.kernel, groups=inner)
        self.select = Linear(inner, self.rank + 2 * config.state_dim, bias=False)
        self.step = Linear(self.rank, inner)
        self.log_rate = nn.Parameter(torch.arange(1.0, config.state_dim + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = Linear(inner, config.width, bias=False)

    def reset_steps(self) -> None:
        """Initial step sizes, log-uniform in 0.001..0.1, as published."""
        bound = self.rank**-0.5
        nn.init.uniform_(self.step.weight, -bound, bound)
        steps = torch.empty(self.inner).uniform_(math.log(1e-3), math.log(0.1)).exp().clamp(min=1e-4)
        with torch.no_grad():
            self.step.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus

    def forward(self, x: Tensor, cache: MambaCache | None = None) -> Tensor:
        """``B N D -> B N D``; a cache is moved on by the ``N`` positions."""
        inputs, gate = self.input_and_gate(self.norm(x)).chunk(2, dim=-1)
        cache = cache or self.new_cache(len(x))
        window = torch.cat([cache.window, inputs], dim=1)
        cache.window = window[:, -cache.window.shape[1] :]
        inputs = F.silu(self.conv(window.mT).mT)
        rank, b, c = self.select(inputs).split((self.rank, self.state_dim, self.state_dim), dim=-1)
        step = F.softplus(self.step(rank).float())
        outputs, cache.state = selective_scan(
            inputs.float(), step, -self.log_rate.float().exp(), b.float(), c.float(), cache.state
        )
        outputs = (outputs + inputs.float() * self.skip).to(x.dtype)
        return x + self.out(outputs * F.silu(gate))

    def new_cache(self, batch: int) -> MambaCache:
        """The state before the first position of ``batch`` sequences."""
        like = self.out.weight
        return MambaCache(
            like.new_zeros(batch, self.conv.kernel_size[0] - 1, self.inner),
            like.new_zeros(batch, self.inner, self.state_dim, dtype=torch.float32),
        )


class Mamba(LanguageModel):
    """Blocks of selective state spaces over embedded tokens."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__(config.vocab_size, config.width, tied=config.tied)
        self.config = config
        self.blocks = nn.ModuleList(MambaBlock(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.apply(_init)
        for block in self.blocks:
            block.reset_steps()
            nn.init.normal_(block.out.weight, std=STD / config.depth**0.5)

    def forward(
        self, tokens: Tensor, *, caches: Sequence[MambaCache] | None = None, layers: bool = False
    ) -> DecoderOutput:
        """Run all blocks on token ids (``B N`` int64) or embeddings (``B N D``); ``caches`` move on by ``N``."""
        x = self.embedded(tokens)
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None)
            if layers:
                outputs.append(x)
        return DecoderOutput(self.norm(x), tuple(outputs))

    def new_caches(self, batch: int, length: int) -> list[MambaCache]:
        """The state of each block before the first token; its size does not depend on ``length``."""
        return [block.new_cache(batch) for block in self.blocks]


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
