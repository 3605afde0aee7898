"""An autoregressive transformer over the codes of a grid: training on all places at once, sampling one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from math import prod
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.linear import Linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.sampling import Sampling, draw, guided
from filmstrip.nn.shared_tokens import share_tokens
from filmstrip.protocols import Grid, RingOfProcesses
from filmstrip.systems.generation.videogpt.causal_attention import (
    Attended,
    Blocks,
    CausalAttention,
    Pattern,
)

AttentionKind = Literal["full", "axial", "sparse", "blocks"]
_BLOCK, _NEAR = 32, 4  # VideoGPT's: codes in a block, blocks before a code's own that it sees
_NORM_EPS = 1e-10  # against a variance of zero only: VideoGPT's norms add nothing to the variance
Affine = tuple[Tensor, Tensor] | None


def patterns(kind: AttentionKind, grid: Sequence[int], num_codebooks: int = 1) -> tuple[Pattern | Blocks, ...]:
    """What the layers see, taking turns, in a grid flattened in raster order.

    ``full``: everything before. ``axial``: what comes before in the same row, then in the same column of the frame,
    then in the same place of all frames. Together they miss some of the past: what lies to the right in an earlier
    row. ``sparse``: the nearest places, then every place at a multiple of some rows (Child et al. 2019); together
    they see everything. The two lengths are equal, about the square root of the number of places. ``blocks``: both in
    every layer, for blocks of 32 places, as VideoGPT's code has it.

    Raises:
        UserError: blocks do not fit the grid.
    """
    t, h, w = grid
    row, frame = w * num_codebooks, h * w * num_codebooks
    if kind == "full":
        return (Pattern(),)
    if kind == "axial":
        return (Pattern(block=row), Pattern(stride=row, block=frame), Pattern(stride=frame))
    if kind == "blocks":
        return (_sparse_blocks((t, h, w * num_codebooks)),)
    length = row * max(1, round((t * frame) ** 0.5 / row))
    return (Pattern(reach=length), Pattern(stride=length))


def _sparse_blocks(shape: tuple[int, ...]) -> Blocks:
    """The nearest blocks, and those before in the line along each axis of blocks but the last."""
    axis, inner = len(shape), 1
    while axis and inner <= _BLOCK:  # the last axes, flattened, until there is more than a block in them
        axis -= 1
        inner *= shape[axis]
    if inner % _BLOCK:
        raise UserError(f"attention in blocks of {_BLOCK} codes does not fit a grid of {shape}: choose another kind")
    extents = (*shape[:axis], inner // _BLOCK)
    strides = [prod(extents[i + 1 :]) for i in range(len(extents) - 1)]
    lines = (Pattern(stride=stride, block=stride * extent) for stride, extent in zip(strides, extents))
    return Blocks(_BLOCK, (Pattern(reach=_NEAR + 1), *lines))


class Given(NamedTuple):
    """What conditions mean to one block, computed once: gains and biases of its norms, and the context it reads."""

    norms: tuple[Affine, Affine, Affine] = (None, None, None)
    context: tuple[Tensor, Tensor] | None = None
    """Keys and values, each ``B H M D``."""


class ConditionalNorm(nn.LayerNorm):
    """Layer normalisation with a gain and a bias that are affine in a vector of ``condition_dim`` values.

    At first the vector changes nothing; a vector of zeros always leaves the norm's own gain and bias.
    """

    def __init__(self, width: int, condition_dim: int, *, eps: float = 1e-6) -> None:
        super().__init__(width, eps=eps)
        self.from_condition = nn.Linear(condition_dim, 2 * width, bias=False)
        nn.init.zeros_(self.from_condition.weight)

    def affine(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and bias, each ``B D``, for vectors ``B C``."""
        gain, bias = self.from_condition(vector).chunk(2, dim=-1)
        return self.weight + gain, self.bias + bias

    def forward(self, x: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
        """Normalise ``B ... D`` with the gain and bias of each sample."""
        gain, bias = (v.view(len(v), *(1,) * (x.ndim - 2), -1) for v in affine)
        return F.layer_norm(x, self.normalized_shape, eps=self.eps) * gain + bias


class CodeBlock(nn.Module):
    """Pre-norm attention to earlier places, to a context if there is one, then a feed-forward network."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        pattern: Pattern | Blocks,
        *,
        mlp_ratio: float,
        dropout: float,
        condition_dim: int,
        context_width: int | None,
    ) -> None:
        super().__init__()
        self.norm1 = _norm(width, condition_dim)
        self.attention = CausalAttention(width, num_heads, pattern)
        if context_width is not None:
            self.norm_context = _norm(width, condition_dim)
            value_dim = context_width // num_heads
            self.cross = Attention(
                width, num_heads, qkv_bias="none", context_width=context_width, value_dim=value_dim
            )
        else:
            self.norm_context = self.cross = None
        self.norm2 = _norm(width, condition_dim)
        self.mlp = MLP(width, round(width * mlp_ratio), gelu="quick")
        self.dropout = nn.Dropout(dropout)

    def given(self, vector: Tensor | None, context: Tensor | None) -> Given:
        """What a vector ``B C`` and a context ``B M D`` mean to this block."""
        norms = (self.norm1, self.norm_context, self.norm2)
        affine = tuple(n.affine(vector) if isinstance(n, ConditionalNorm) else None for n in norms)
        return Given(affine, None if self.cross is None else self.cross.keys_and_values(context))

    def forward(
        self, x: Tensor, vector: Tensor | None, context: Tensor | None, cache: Tensor | None = None
    ) -> Tensor:
        """``B N D -> B N D``; a cache is filled with the ``N`` places."""
        given = self.given(vector, context)
        x = x + self.dropout(self.attention(_apply(self.norm1, x, given.norms[0]), cache))
        if self.cross is not None:
            q = self.cross.q(_apply(self.norm_context, x, given.norms[1]))
            x = x + self.dropout(self.cross.out(self._read(q, given)))
        return x + self.dropout(self.mlp(_apply(self.norm2, x, given.norms[2])))

    def share_tokens(self, ring: RingOfProcesses) -> bool:
        """See :class:`~filmstrip.protocols.SharesTokens`."""
        self.attention.ring = ring
        share_tokens(self, ring)
        return True

    def step(self, x: Tensor, given: Given, cache: Tensor, at: int | Attended) -> Tensor:
        """``B D -> B D`` for one more place: :meth:`forward` without dropout."""
        x = x + self.attention.step(_apply(self.norm1, x, given.norms[0]), cache, at)
        if self.cross is not None:
            q = self.cross.q(_apply(self.norm_context, x, given.norms[1]))
            x = x + self.cross.out(self._read(q[:, None], given)[:, 0])
        hidden = self.mlp.act(self.mlp.fc1(_apply(self.norm2, x, given.norms[2])))
        return x + self.mlp.fc2(hidden)

    def _read(self, q: Tensor, given: Given) -> Tensor:
        """What queries ``B N D`` find in the context."""
        q = rearrange(q, "b n (h d) -> b h n d", h=self.cross.num_heads)
        return rearrange(attend(q, *given.context), "b h n d -> b n (h d)")


class CodeTransformer(nn.Module):
    """A distribution of codes on a grid, in raster order (the codes of several codebooks side by side).

    The architecture is GPT-2's and Image GPT's (Chen et al. 2020) as VideoGPT's code has it: the sigmoid's GELU, no
    biases on queries, keys and values, dropout after attention and feed-forward network. Positions are learnt, one
    table an axis, and stand for the code that is predicted. A condition is a vector that moves every norm's gain and
    bias (``condition_dim``), a context that every block reads (``context_width``, which the heads' values share), or
    both.

    Raises:
        ValueError: more codes are given or asked for than there are places.
    """

    def __init__(
        self,
        *,
        codebook_size: int,
        grid: Sequence[int],
        width: int,
        depth: int,
        num_heads: int,
        num_codebooks: int = 1,
        mlp_ratio: float = 4.0,
        attention: AttentionKind = "full",
        dropout: float = 0.0,
        condition_dim: int = 0,
        context_width: int | None = None,
    ) -> None:
        super().__init__()
        self.grid = Grid(*grid)
        self.codebook_size, self.num_codebooks = codebook_size, num_codebooks
        self.places = self.grid.t * self.grid.h * self.grid.w * num_codebooks
        self.start = codebook_size * num_codebooks
        """The row of ``embed`` that comes before the first code."""
        self.embed = nn.Embedding(self.start + 1, width)
        axes = (*grid, num_codebooks)
        self.positions = nn.ParameterList(torch.randn(size, width) * 0.02 for size in axes if size > 1)
        kinds = patterns(attention, grid, num_codebooks)
        self.blocks = nn.ModuleList(
            CodeBlock(
                width,
                num_heads,
                pattern,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                condition_dim=condition_dim,
                context_width=context_width,
            )
            for pattern in islice(cycle(kinds), depth)
        )
        self.norm = _norm(width, condition_dim)
        self.head = Linear(width, codebook_size, bias=False)
        self.apply(_init)
        for block in self.blocks:  # as GPT-2: the sum of all layers starts out as large as one
            for linear in (block.attention.out, block.mlp.fc2):
                nn.init.normal_(linear.weight, std=0.02 / (2 * depth) ** 0.5)

    def forward(self, ids: Tensor, vector: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Logits ``B N K`` of ``B N`` codes, each given those before it, a vector ``B C`` and a context ``B M D``."""
        x = self._embedded(ids[:, :-1])
        for block in self.blocks:
            x = block(x, vector, context)
        return self.head(_apply(self.norm, x, _affine(self.norm, vector)))

    def generate(
        self,
        uniform: Tensor,
        sampling: Sampling,
        *,
        vector: Tensor | None = None,
        context: Tensor | None = None,
        prefix: Tensor | None = None,
        static: bool | None = None,
        compile: bool = False,
    ) -> Tensor:
        """Codes ``B N``: those of :meth:`stream`, all at once."""
        (codes,) = self.stream(
            uniform, sampling, vector=vector, context=context, prefix=prefix, static=static, compile=compile
        )
        return codes

    @torch.no_grad()
    def stream(
        self,
        uniform: Tensor,
        sampling: Sampling,
        *,
        piece: int | None = None,
        vector: Tensor | None = None,
        context: Tensor | None = None,
        prefix: Tensor | None = None,
        static: bool | None = None,
        compile: bool = False,
    ) -> Iterator[Tensor]:
        """Codes, ``piece`` by piece (``B piece``; by default all ``N`` at once), as soon as they are known.

        They are drawn with ``uniform`` (``B N``, in [0, 1)); those of ``prefix`` (``B P``) come first.

        Each code costs one step, which reads what it sees from a cache: nothing is computed twice. The steps all have
        the same shapes if ``static`` (by default on a GPU) or ``compile`` asks for it; without, they read only the
        part of the cache that is filled. Guidance needs as many steps of twice the batch.
        """
        batch, places = uniform.shape
        self._check(places)
        static = compile or (uniform.is_cuda if static is None else static)
        doubled = sampling.guidance != 1.0
        if doubled:
            vector, context = (None if c is None else torch.cat([c, torch.zeros_like(c)]) for c in (vector, context))
        rows = batch * (1 + doubled)
        ids = torch.empty(batch, places, dtype=torch.int64, device=uniform.device)
        caches = [block.attention.new_cache(rows, places) for block in self.blocks]
        given = [block.given(vector, context) for block in self.blocks]
        last = _affine(self.norm, vector)
        table = self._position_table()
        first = 0 if prefix is None else min(prefix.shape[1], places)
        if first:
            ids[:, :first] = prefix[:, :first]
            x = self._embedded(ids[:, : first - 1].repeat(1 + doubled, 1))
            for block, cache in zip(self.blocks, caches):
                x = block(x, vector, context, cache)
        piece = piece or places
        for known in range(piece, min(first + 1, places), piece):
            yield ids[:, known - piece : known].clone()
        step = self._compiled_step() if compile else self._step
        for n in range(first, places):
            if n:
                rows_in = ids[:, n - 1] + (n - 1) % self.num_codebooks * self.codebook_size
            else:
                rows_in = ids.new_full((batch,), self.start)
            if doubled:
                rows_in = rows_in.repeat(2)
            logits = step(rows_in, torch.tensor([n], device=ids.device) if static else n, table, caches, given, last)
            if doubled:
                logits = guided(*logits.chunk(2), sampling.guidance)
            ids[:, n] = draw(logits, uniform[:, n], sampling)
            if n + 1 < places and (n + 1) % piece == 0:
                yield ids[:, n + 1 - piece : n + 1].clone()
        yield ids[:, (places - 1) // piece * piece :]

    def _step(
        self, rows: Tensor, place: int | Tensor, table: Tensor, caches: list[Tensor], given: list[Given], last: Affine
    ) -> Tensor:
        """Logits ``B K`` of the code at ``place``, after the row of ``embed`` that stands for the one before it."""
        x = self.embed(rows) + table[place]
        if isinstance(place, int):
            seen = dict.fromkeys((block.attention.pattern for block in self.blocks), place)
        else:
            room = caches[0].shape[3]
            seen = {p: p.seen_by(place, room) for p in {block.attention.pattern: None for block in self.blocks}}
        for block, cache, what in zip(self.blocks, caches, given):
            x = block.step(x, what, cache, seen[block.attention.pattern])
        return self.head(_apply(self.norm, x, last))

    def _compiled_step(self) -> Callable[..., Tensor]:
        mode = "reduce-overhead" if self.head.weight.is_cuda else None
        return torch.compile(self._step, mode=mode, fullgraph=True, dynamic=False)

    def _embedded(self, before: Tensor) -> Tensor:
        """Embeddings ``B N+1 D`` of the start and of ``N`` codes, each with the position of the code that follows."""
        batch, places = before.shape[0], before.shape[1] + 1
        self._check(places)
        book = torch.arange(places - 1, device=before.device) % self.num_codebooks
        rows = torch.cat([before.new_full((batch, 1), self.start), before + book * self.codebook_size], dim=1)
        return self.embed(rows) + self._position_table()[:places]

    def _position_table(self) -> Tensor:
        """``N D``: what each place's coordinates add."""
        table, axes = 0, (*self.grid, self.num_codebooks)
        parameters = iter(self.positions)
        for axis, size in enumerate(axes):
            if size > 1:
                table = table + next(parameters).view(*(size if a == axis else 1 for a in range(4)), -1)
        return table.expand(*axes, -1).flatten(0, 3)

    def _check(self, places: int) -> None:
        if places > self.places:
            raise ValueError(f"the model has {self.places} positions for codes; {places} codes were asked for")


def _norm(width: int, condition_dim: int) -> nn.LayerNorm:
    if condition_dim:
        return ConditionalNorm(width, condition_dim, eps=_NORM_EPS)
    return nn.LayerNorm(width, eps=_NORM_EPS)


def _affine(norm: nn.LayerNorm, vector: Tensor | None) -> Affine:
    return norm.affine(vector) if isinstance(norm, ConditionalNorm) else None


def _apply(norm: nn.LayerNorm, x: Tensor, affine: Affine) -> Tensor:
    return norm(x) if affine is None else norm(x, affine)


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
