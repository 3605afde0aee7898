"""The decoder-only transformer of language models: each token is predicted from those before it.

With ``base_width`` it is in the maximal update parametrisation (muP; Yang et al. 2022, "Tensor Programs V", table 8,
for Adam), in which the best learning rate does not depend on the width. In multiples ``m`` of the base width:

============================  ===================  ==================  =====================================
part                          initial deviation    learning rate       factor in the forward pass
============================  ===================  ==================  =====================================
embedding                     1                    1                   1
matrices within blocks        1 / root of fan-in   1 / m               1
output layer                  0                    1                   1 / m
attention scores                                                       root of base head / head, not its root
norms, biases                 1 or 0               1                   1
============================  ===================  ==================  =====================================

:class:`Decoder` sees to all but the rates: an objective that trains one passes on :meth:`Decoder.rate_of`. muP does
not cover depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate
from filmstrip.errors import UserError
from filmstrip.nn.attention import KVCache, SharedKVCache, StaticKVCache
from filmstrip.nn.block import Block
from filmstrip.nn.blockwise import cross_entropy_in_blocks
from filmstrip.nn.initialisation import STD
from filmstrip.nn.linear import Linear, linear
from filmstrip.nn.masks import Mask, causal, local, without_first
from filmstrip.nn.positions import sincos
from filmstrip.nn.ring_attention import own_tokens
from filmstrip.nn.rotary import Rotary
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.protocols import RingOfProcesses


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a decoder-only transformer, by default with the parts of LLaMA (Touvron et al. 2023)."""

    vocab_size: Count
    """Number of different tokens."""
    width: Count
    """Dimension of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Number of attention heads."""
    mlp_dim: Count
    """Inner width of the feed-forward networks."""
    num_kv_heads: Count | None = None
    """Number of heads of keys and values, each shared by several heads of queries; none for one each."""
    head_dim: Count | None = None
    """Dimension of a head; none divides the width."""
    tied: bool = False
    """Whether the output layer shares its weights with the embedding."""
    block: Literal["llama", "gpt2"] = "llama"
    """Parts of a block: RMS normalisation and SwiGLU without biases (``llama``), or layer normalisation and a GELU
    network with biases (``gpt2``)."""
    positions: Literal["rotary", "sincos", "learned"] = "rotary"
    """Position embeddings: rotated queries and keys, or sines and cosines, or learned vectors (GPT-2), added to the
    tokens."""
    max_length: Count | None = None
    """Number of learned positions; none for other kinds."""
    rope_base: Rate = 10_000.0
    """Base of the wavelengths of rotary embeddings."""
    rope_index_scale: Rate = 1.0
    """Number by which positions are divided before rotary embeddings turn by them (position interpolation); another
    way to longer texts than a larger base."""
    rope_sections: tuple[Count, Count, Count] | None = None
    """Pairs of a head's channels that rotary embeddings turn by positions along time, height and width (Qwen2-VL);
    none for one axis."""
    norm_eps: Rate = 1e-6
    """Constant added to the variance in normalisations."""
    qkv_bias: bool = False
    """Whether queries, keys and values have biases in a ``llama`` block (Qwen2)."""
    qk_norm: bool = False
    """Whether queries and keys are normalised in each head (Qwen3)."""
    window: Count | None = None
    """Number of latest tokens, itself included, that a token attends to (Mistral); none for all before it."""
    base_width: Count | None = None
    """Width at which all factors of muP are one, so that a learning rate found there holds for every width; none for
    the standard parametrisation."""
    base_head_dim: Count | None = None
    """Dimension of a head at the base width; none for the same as here. Only for muP."""

    @property
    def width_ratio(self) -> float:
        """The width in multiples of muP's base width; one in the standard parametrisation."""
        return self.width / self.base_width if self.base_width else 1.0

    @property
    def score_scale(self) -> float:
        """Factor of the attention scores beside one over the root of a head's dimension: muP divides by all of it."""
        if self.base_width is None or self.base_head_dim is None:
            return 1.0
        return (self.base_head_dim / (self.head_dim or self.width // self.num_heads)) ** 0.5


BeforeBlock = Callable[[int, Tensor], Tensor]
"""What is done to the tokens ``B N D`` that enter a block, by its number, such as looking at a video."""


Steps = Literal["growing", "static", "compiled"]
"""Steps of decoding: each reads the tokens so far (``growing``), or all of the memory for them with a mask, so that
all steps have the same shapes (``static``) and are one compiled graph (``compiled``)."""
_LEAST_ROOM = 256
"""Minimum number of tokens that the memory of static steps has room for."""


def _static_room(length: int) -> int:
    """Room for so many tokens, of which there are few different ones: prompts of other lengths share a graph."""
    return max(_LEAST_ROOM, 1 << (length - 1).bit_length())


class DecoderOutput(NamedTuple):
    """What a decoder computes of ``N`` tokens."""

    hidden: Tensor
    """Normalised output of the last block, ``B N D``."""
    layers: tuple[Tensor, ...]
    """Output of every block before the last normalisation, each ``B N D``, if requested."""


class LanguageModel(nn.Module):
    """What models of the next token share: embedding, output layer, decoding token by token.

    Subclasses define :meth:`forward` and :meth:`new_caches`.
    """

    steps: Steps = "growing"
    """Steps of :meth:`decode`; those that are not growing need attention with a :class:`KVCache`."""
    ring: RingOfProcesses | None = None
    """Processes that share the tokens that :meth:`decode` reads, and their keys and values; none for one alone. All
    call it with the same arguments, and get the same tokens."""

    def __init__(self, vocab_size: int, width: int, *, tied: bool) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.width = width
        self.embed = nn.Embedding(vocab_size, width)
        self.head = None if tied else Linear(width, vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """Weight of the output layer, ``vocab_size D``."""
        return self.embed.weight if self.head is None else self.head.weight

    def embedded(self, tokens: Tensor) -> Tensor:
        """Embeddings ``B N D`` of token ids (``B N`` int64); embeddings are returned as they are."""
        return tokens if tokens.is_floating_point() else self.embed(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``... vocab_size`` of the next token, of normalised outputs ``... D``."""
        return linear(hidden, self.output_weight)

    def losses(self, hidden: Tensor, target: Tensor, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy ``...`` of ``target`` ids ``...``, of normalised outputs ``... D``, and the ids put first.

        The logits of one block of tokens are in memory at a time.
        """
        flat = hidden.flatten(0, -2)
        losses, best = cross_entropy_in_blocks(flat, self.output_weight, target.flatten(), smoothing=smoothing)
        return losses.view_as(target), best.view_as(target)

    def rate_of(self, name: str) -> float:
        """The factor of a parameter's learning rate that the width asks for, by its name in this module."""
        return 1.0

    def new_caches(self, batch: int, length: int) -> list[Any]:
        """What each block remembers of earlier tokens, still empty, for ``batch`` sequences of up to ``length``."""
        raise TypeError(f"{type(self).__name__} does not define new_caches(batch, length)")

    def shared_caches(self, batch: int, length: int, ring: RingOfProcesses) -> list[Any]:
        """As :meth:`new_caches`, for processes each of which remembers its share of the tokens."""
        raise TypeError(f"{type(self).__name__} does not define shared_caches(batch, length, ring)")

    @torch.no_grad()
    def decode(
        self,
        prompt: Tensor,
        uniform: Tensor,
        sampling: Sampling,
        *,
        allowed: slice = slice(None),
        padding: Tensor | None = None,
        positions: Tensor | None = None,
        of_prompt: Mapping[str, Any] | None = None,
        before: BeforeBlock | None = None,
    ) -> Iterator[Tensor]:
        """The tokens that follow ``prompt`` (``B P`` ids or ``B P D`` embeddings), one position at a time: ``B``.

        As many are drawn as there are columns of ``uniform`` (``B N``, in [0, 1)), only from the ``allowed`` ids.
        Each costs one step on what the blocks remember of earlier tokens. Of prompts of different lengths, the first
        ``padding`` (``B``) tokens are none. ``positions`` (``B P+N``, or along three axes ``B P+N 3``) are those of
        the prompt and of what follows it; by default they count from the first token that is no padding.
        ``of_prompt`` are further arguments of :meth:`forward` for the prompt, and ``before`` is one for all tokens.
        """
        count = uniform.shape[1]
        if self.ring is not None:
            if of_prompt or before is not None:
                raise UserError("this method's language model looks at video in its blocks: leave out --context")
            yield from self._decode_along(self.ring, prompt, uniform, sampling, allowed, padding, positions)
            return
        room = prompt.shape[1] + count - 1
        caches = self.new_caches(len(prompt), room if self.steps == "growing" else _static_room(room))
        first = range(self.vocab_size)[allowed].start
        at = torch.arange(room, device=prompt.device)
        tokens, start, step = prompt, 0, self.next_logits
        for n in range(count):
            end = start + tokens.shape[1]
            options: dict[str, Any] = {} if before is None else {"before": before}
            if positions is not None:
                # A copy, since a compiled step is one for tensors of certain strides.
                options["positions"] = positions[:, start:end].clone(memory_format=torch.contiguous_format)
            elif padding is not None:
                options["positions"] = (at[start:end] - padding[:, None]).clamp(min=0)
            more = of_prompt or {} if n == 0 else {}
            logits = step(tokens, caches, padding, **options, **more)
            token = draw(logits[:, allowed], uniform[:, n], sampling) + first
            yield token
            tokens, start = token[:, None], end
            if n == 0 and self.steps != "growing":
                caches = [StaticKVCache(cache) for cache in caches]
                if self.steps == "compiled":
                    step = torch.compile(step, dynamic=False)

    def _decode_along(
        self,
        ring: RingOfProcesses,
        prompt: Tensor,
        uniform: Tensor,
        sampling: Sampling,
        allowed: slice,
        padding: Tensor | None,
        positions: Tensor | None,
    ) -> Iterator[Tensor]:
        """:meth:`decode` by processes that share the tokens."""
        missing = -prompt.shape[1] % ring.size  # padding, too, stands first
        prompt = F.pad(prompt, (0, 0) * (prompt.ndim - 2) + (missing, 0))
        if padding is None:
            padding = prompt.new_zeros(len(prompt), dtype=torch.int64)
        padding, count = padding + missing, uniform.shape[1]
        room = prompt.shape[1] + count - 1
        if positions is None:
            positions = (torch.arange(room, device=prompt.device) - padding[:, None]).clamp(min=0)
        else:
            positions = F.pad(positions, (0, 0) * (positions.ndim - 2) + (missing, 0))
        caches, mask = self.shared_caches(len(prompt), room, ring), causal() & without_first(padding)
        start, tokens = prompt.shape[1], own_tokens(prompt, ring)
        at = own_tokens(positions[:, :start], ring)
        for n in range(count):
            hidden = self(tokens, caches=caches, mask=mask, positions=at).hidden[:, -1]
            if n == 0:  # the last of the first tokens is that of the last process
                hidden = ring.sum(hidden if ring.rank == ring.size - 1 else torch.zeros_like(hidden))
            logits = self.logits(hidden)[:, allowed]
            token = draw(logits, uniform[:, n], sampling) + range(self.vocab_size)[allowed].start
            token = ring.sum(token if ring.rank == 0 else torch.zeros_like(token))  # whatever was rounded otherwise
            yield token
            tokens, at = token[:, None], positions[:, start + n : start + n + 1]

    def next_logits(
        self, tokens: Tensor, caches: Sequence[Any], padding: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Logits ``B vocab_size`` of the token after ``tokens`` (``B N`` ids or ``B N D`` embeddings).

        The first ``padding`` (``B``) of all tokens are none; ``options`` are those of :meth:`forward`.
        """
        if padding is not None:
            options["mask"] = causal() & without_first(padding)
        return self.logits(self(tokens, caches=caches, **options).hidden[:, -1])


class Decoder(LanguageModel):
    """Blocks of causal self-attention over embedded tokens, and an output layer that predicts the next token."""

    def __init__(self, config: DecoderConfig) -> None:
        """Build it with fresh weights.

        Raises:
            UserError: muP with tied weights, a base head without a base width, or learned positions without a number.
        """
        if config.base_width and config.tied:
            raise UserError(
                "muP (base_width) needs an output layer of its own: embedding and output layer have other deviations "
                "and rates there, which one matrix cannot have; set tied to False"
            )
        if config.base_head_dim and not config.base_width:
            raise UserError("base_head_dim belongs to muP: give base_width too")
        if (config.positions == "learned") != (config.max_length is not None):
            raise UserError("learned positions have a number (max_length), and no others have: give both or neither")
        super().__init__(config.vocab_size, config.width, tied=config.tied)
        self.config = config
        learned = config.max_length is not None
        self.pos_embed = nn.Parameter(STD * torch.randn(config.max_length, config.width)) if learned else None
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = _norm(config)
        head_dim = self.blocks[0].attention.head_dim
        self.rotary = None
        if config.positions == "rotary":
            self.rotary = Rotary(
                head_dim,
                base=config.rope_base,
                index_scale=config.rope_index_scale,
                sections=config.rope_sections,
            )
        self.apply(_init_mup if config.base_width else _init)
        for block in self.blocks:  # the sum of all layers starts out as large as one (Radford et al. 2019)
            for out in (block.attention.out, block.mlp.out if config.block == "llama" else block.mlp.fc2):
                std = out.in_features**-0.5 if config.base_width else STD
                nn.init.normal_(out.weight, std=std / (2 * config.depth) ** 0.5)
        if config.base_width:
            nn.init.zeros_(self.output_weight)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``... vocab_size`` of the next token, of normalised outputs ``... D``."""
        return super().logits(self._scaled(hidden))

    def losses(self, hidden: Tensor, target: Tensor, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """See :meth:`LanguageModel.losses`."""
        return super().losses(self._scaled(hidden), target, smoothing=smoothing)

    def _scaled(self, hidden: Tensor) -> Tensor:
        """What the output layer reads."""
        ratio = self.config.width_ratio
        return hidden if ratio == 1 else hidden / ratio

    def rate_of(self, name: str) -> float:
        """The factor of a parameter's learning rate, by its name in this module: muP's of the matrices in blocks."""
        hidden = name.startswith("blocks.") and self.get_parameter(name).ndim == 2
        return 1 / self.config.width_ratio if hidden else 1.0

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Mask | None = None,
        positions: Tensor | None = None,
        caches: Sequence[KVCache | StaticKVCache] | None = None,
        layers: bool = False,
        before: BeforeBlock | None = None,
    ) -> DecoderOutput:
        """Run all blocks on token ids (``B N`` int64) or embeddings (``B N D``).

        ``before`` is applied to the tokens that enter each block. ``mask`` replaces plain causality. ``positions``
        (``N`` or ``B N``; along three axes ``B N 3``) by default count on from what the ``caches`` hold, which are
        extended by the ``N`` tokens.
        """
        x = self.embedded(tokens)
        if positions is None:
            start = caches[0].length if caches else 0
            positions = start + torch.arange(x.shape[1], device=x.device)
        x, angles, mask = self.prepared(x, positions, mask or causal())
        outputs = []
        for i, block in enumerate(self.blocks):
            if before is not None:
                x = before(i, x)
            x = block(x, mask=mask, angles=angles, cache=caches[i] if caches else None)
            if layers:
                outputs.append(x)
        return DecoderOutput(self.norm(x), tuple(outputs))

    def prepared(self, x: Tensor, positions: Tensor, mask: Mask) -> tuple[Tensor, Tensor | None, Mask]:
        """Tokens with their positions added, or the angles of rotary ones, and the mask with the window."""
        if self.config.window is not None:
            mask = mask & local(self.config.window - 1)
        if self.pos_embed is not None:
            return x + F.embedding(positions, self.pos_embed), None, mask
        if self.rotary is None:
            return x + sincos(positions, x.shape[2]).to(x.dtype), None, mask
        return x, self.rotary(self._along_axes(positions)), mask

    def _along_axes(self, positions: Tensor) -> Tensor:
        """Positions ``... N axes``; those of one axis are the same on all."""
        if self.config.rope_sections is None:
            return positions[..., None]
        return positions if positions.ndim == 3 else positions[..., None].expand(*positions.shape, 3)

    def new_caches(self, batch: int, length: int) -> list[KVCache]:
        """Empty caches, one a block, for ``batch`` sequences of up to ``length`` tokens."""
        like = self.embed.weight
        return [
            KVCache(batch, a.num_kv_heads, length, a.head_dim, dtype=like.dtype, device=like.device)
            for a in (block.attention for block in self.blocks)
        ]

    def shared_caches(self, batch: int, length: int, ring: RingOfProcesses) -> list[SharedKVCache]:
        """As :meth:`new_caches`, for processes each of which remembers its share of the tokens."""
        like = self.embed.weight
        return [
            SharedKVCache(batch, a.num_kv_heads, length, a.head_dim, ring=ring, dtype=like.dtype, device=like.device)
            for a in (block.attention for block in self.blocks)
        ]


def _block(config: DecoderConfig) -> Block:
    llama = config.block == "llama"
    return Block(
        config.width,
        config.num_heads,
        mlp_ratio=config.mlp_dim / config.width,
        head_dim=config.head_dim,
        num_kv_heads=config.num_kv_heads,
        qk_norm=config.qk_norm,
        qkv_bias="all" if config.qkv_bias or not llama else "none",
        score_scale=config.score_scale,
        norm_eps=config.norm_eps,
        kind="llama" if llama else "vit",
        gelu="tanh",
    )


def _norm(config: DecoderConfig) -> nn.Module:
    kind = nn.RMSNorm if config.block == "llama" else nn.LayerNorm
    return kind(config.width, eps=config.norm_eps)


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _init_mup(module: nn.Module) -> None:
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
