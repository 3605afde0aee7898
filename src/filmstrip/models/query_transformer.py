"""Learned queries that read visual tokens: a transformer, which text may join, and a single layer of attention.

:class:`QueryTransformer` is BLIP-2's Q-Former (Li et al. 2023), without text also the one of Video-LLaMA (Zhang et
al. 2023). :class:`QueryPooling` is one cross-attention: Qwen-VL's adapter (Bai et al. 2023), CoCa's and LaViLa's
pooling (Yu et al. 2022, Zhao et al. 2023), SigLIP's head (Zhai et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate, ShareBelowOne
from filmstrip.nn.attention import Attention
from filmstrip.nn.initialisation import STD, init_normal
from filmstrip.nn.linear import Linear
from filmstrip.nn.masks import Mask
from filmstrip.nn.mlp import GELU, MLP
from filmstrip.nn.positions import sincos_plane
from filmstrip.protocols import Grid
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import fuse, layers, unfuse

Sees = Literal["apart", "together", "generation"]
"""What attends to what where text stands beside queries: queries and text each to themselves (``apart``, to contrast
them), all to all (``together``, to match them), or text to queries and earlier text, and queries to queries
(``generation``)."""


@dataclass(frozen=True, kw_only=True)
class QueryTransformerConfig:
    """Sizes of a :class:`QueryTransformer`."""

    num_queries: Count
    """Number of learned queries."""
    width: Count
    """Channels of a token."""
    depth: Count
    """Number of layers."""
    num_heads: Count
    """Attention heads of a layer."""
    mlp_dim: Count
    """Inner width of the feed-forward networks."""
    context_width: Count | None = None
    """Channels of the visual tokens; none for those of a query."""
    cross_every: Count = 1
    """Number of layers from one with cross-attention to the next; the first layer has it."""
    vocab_size: Count | None = None
    """Number of text token ids; none for queries without text."""
    max_length: Count = 512
    """Maximum number of text tokens."""
    text_output: bool = True
    """Whether text comes out beside the queries; without, the last layer has no feed-forward network for it."""
    norm_eps: Rate = 1e-12
    """Constant added to the variance in normalisations."""
    dropout: ShareBelowOne = 0.0
    """Dropout of embeddings and of what each part of a layer adds."""


class QueryOutput(NamedTuple):
    """What a :class:`QueryTransformer` makes of queries and text."""

    queries: Tensor
    """``B K D``; no rows (``K`` = 0) where text was alone."""
    text: Tensor
    """``B L D``; no rows (``L`` = 0) without text, or where only queries come out."""


class QueryTransformer(nn.Module):
    """Learned queries that attend to themselves and text, and in every k-th layer to visual tokens.

    Layers normalise after each part, as BERT's. Self-attention is shared by queries and text; each has feed-forward
    networks of its own, and queries alone attend to visual tokens.
    """

    def __init__(self, config: QueryTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.queries = nn.Parameter(torch.empty(config.num_queries, width).normal_(std=STD))
        has_text = config.vocab_size is not None
        self.embed = nn.Embedding(config.vocab_size, width) if has_text else None
        self.pos_embed = nn.Parameter(torch.empty(config.max_length, width).normal_(std=STD)) if has_text else None
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            _Layer(
                config,
                cross=i % config.cross_every == 0,
                text=has_text and (config.text_output or i + 1 < config.depth),
            )
            for i in range(config.depth)
        )
        self.apply(init_normal)
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=STD)

    def forward(
        self,
        context: Tensor | None,
        text: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        sees: Sees = "together",
    ) -> QueryOutput:
        """Run queries over a context (``B M C``), text (``B L`` int64 ids, or ``B L D`` embeddings), or both.

        ``valid`` (``B L`` bool) marks text that is no padding. Without a context there are no queries, and text
        attends to text alone.

        Raises:
            ValueError: text is longer than ``max_length``, or was given where there is none.
        """
        parts = []
        if context is not None:
            parts.append(self.queries.expand(context.shape[0], -1, -1))
        if text is not None:
            parts.append(self._embedded(text))
        count = 0 if context is None else self.config.num_queries
        x = self.dropout(self.norm(torch.cat(parts, dim=1)))
        mask = None
        if text is not None:
            valid = torch.ones(text.shape[:2], dtype=torch.bool, device=x.device) if valid is None else valid
            mask = _beside_text(F.pad(valid, (count, 0), value=True), count, sees)
        for block in self.blocks:
            x = block(x, context, count, mask)
        return QueryOutput(x[:, :count], x[:, count:])

    def _embedded(self, text: Tensor) -> Tensor:
        if self.embed is None or self.pos_embed is None:
            raise ValueError("this query transformer was built without text: set vocab_size")
        if text.shape[1] > self.config.max_length:
            raise ValueError(f"text of {text.shape[1]} tokens exceeds the maximum of {self.config.max_length}")
        embedded = text if text.is_floating_point() else self.embed(text)
        return embedded + self.pos_embed[: text.shape[1]]


class _Layer(nn.Module):
    def __init__(self, config: QueryTransformerConfig, *, cross: bool, text: bool) -> None:
        super().__init__()
        width = config.width

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=config.norm_eps)

        self.attention = Attention(width, config.num_heads)
        self.norm = norm()
        context_width = config.context_width or width
        self.cross = Attention(width, config.num_heads, context_width=context_width) if cross else None
        self.cross_norm = norm() if cross else None
        self.query_mlp = MLP(width, config.mlp_dim)
        self.query_mlp_norm = norm()
        self.text_mlp = MLP(width, config.mlp_dim) if text else None
        self.text_mlp_norm = norm() if text else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor | None, count: int, mask: Mask | None) -> Tensor:
        """The first ``count`` of ``B N D`` tokens are queries."""
        x = self.norm(x + self.dropout(self.attention(x, mask=mask)))
        queries, text = x[:, :count], x[:, count:]
        if count:
            if self.cross is not None:
                queries = self.cross_norm(queries + self.dropout(self.cross(queries, context=context)))
            queries = self.query_mlp_norm(queries + self.dropout(self.query_mlp(queries)))
        if self.text_mlp is None:
            return queries
        if text.shape[1]:
            text = self.text_mlp_norm(text + self.dropout(self.text_mlp(text)))
        return torch.cat([queries, text], dim=1)


def _beside_text(valid: Tensor, count: int, sees: Sees) -> Mask:
    """Attention among ``count`` queries and the text behind them (``valid`` ``B N``: not padding)."""

    def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        allowed = valid[b, k] | (q == k)
        if sees == "apart":
            return allowed & ((q < count) == (k < count))
        if sees == "generation":
            return allowed & ((k < count) | ((q >= count) & (k <= q)))
        return allowed

    return Mask(rule, batch=valid.shape[0])


@dataclass(frozen=True, kw_only=True)
class QueryPoolingConfig:
    """Sizes and parts of a :class:`QueryPooling`."""

    num_queries: Count
    """Number of learned queries."""
    width: Count
    """Channels of queries and outputs."""
    num_heads: Count
    """Attention heads."""
    context_width: Count | None = None
    """Channels of the visual tokens; none for those of a query."""
    num_kv_heads: Count | None = None
    """Number of heads of keys and values, each shared by several heads of queries; none for one each."""
    head_dim: Count | None = None
    """Dimension of a head; none divides the width."""
    bias: bool = True
    """Whether the layers of attention have biases."""
    project: bool = False
    """Whether visual tokens are projected to the width, without a bias, before keys and values are computed."""
    norms: bool = True
    """Whether queries, visual tokens and outputs are normalised."""
    grid: tuple[Count, Count] | None = None
    """Rows and columns of the queries' fixed positions; visual tokens have the same, resized. None for no
    positions."""
    mlp_dim: Count | None = None
    """Inner width of a feed-forward network with a residual connection behind it; none for no such network."""
    gelu: GELU = "exact"
    """Nonlinearity of that network."""
    norm_eps: Rate = 1e-6
    """Constant added to the variance in normalisations."""


class QueryPooling(nn.Module):
    """One attention from learned queries to visual tokens, without a residual connection: ``B M C -> B K D``.

    Raises:
        ValueError: the grid of positions has not as many places as there are queries, or visual tokens of another
            width than theirs would get positions.
    """

    positions: Tensor | None

    def __init__(self, config: QueryPoolingConfig) -> None:
        super().__init__()
        self.config = config
        width, eps = config.width, config.norm_eps
        given = config.context_width or width
        context_width = width if config.project else given
        if config.grid is not None and config.grid[0] * config.grid[1] != config.num_queries:
            raise ValueError(f"a grid of {config.grid} has not as many places as the {config.num_queries} queries")
        if config.grid is not None and context_width != width:
            raise ValueError("positions need visual tokens of the queries' width: set project")
        self.queries = nn.Parameter(torch.empty(config.num_queries, width).normal_(std=STD))
        self.project = Linear(given, width, bias=False) if config.project else nn.Identity()
        self.context_norm = nn.LayerNorm(context_width, eps=eps) if config.norms else nn.Identity()
        self.query_norm = nn.LayerNorm(width, eps=eps) if config.norms else nn.Identity()
        self.attention = Attention(
            width,
            config.num_heads,
            head_dim=config.head_dim,
            num_kv_heads=config.num_kv_heads,
            qkv_bias="all" if config.bias else "none",
            out_bias=config.bias,
            context_width=context_width,
        )
        self.norm = nn.LayerNorm(width, eps=eps) if config.norms else nn.Identity()
        has_mlp = config.mlp_dim is not None
        self.mlp_norm = nn.LayerNorm(width, eps=eps) if has_mlp else None
        self.mlp = MLP(width, config.mlp_dim, gelu=config.gelu) if has_mlp else None
        positions = None if config.grid is None else sincos_plane(*config.grid, width)
        self.register_buffer("positions", positions, persistent=False)
        self.apply(init_normal)

    def forward(self, tokens: Tensor, grid: Grid | None = None, *, mask: Mask | None = None) -> Tensor:
        """Pool visual tokens ``B M C``, of one time step of a ``grid`` if the queries have positions, as far as a
        ``mask`` allows."""
        queries = self.query_norm(self.queries)
        places = None
        if self.positions is not None:
            if grid is None:
                raise ValueError("queries with positions need the grid of the visual tokens")
            queries = queries + self.positions
            places = self._resized(grid)
        context = self.context_norm(self.project(tokens))
        queries = queries.expand(tokens.shape[0], -1, -1)
        pooled = self.norm(self.attention(queries, context=context, mask=mask, context_positions=places))
        return pooled if self.mlp is None else pooled + self.mlp(self.mlp_norm(pooled))

    def _resized(self, grid: Grid) -> Tensor:
        """Positions ``h w D`` of visual tokens, by bicubic interpolation of the queries'."""
        rows, columns = self.config.grid
        if (grid.h, grid.w) == (rows, columns):
            return self.positions
        table = self.positions.T.unflatten(1, (rows, columns))[None]
        resized = F.interpolate(table, size=(grid.h, grid.w), mode="bicubic", align_corners=False)
        return resized[0].flatten(1).T


_MLP = (
    ("intermediate{}.dense.weight", "{}_mlp.fc1.weight"),
    ("intermediate{}.dense.bias", "{}_mlp.fc1.bias"),
    ("output{}.dense.weight", "{}_mlp.fc2.weight"),
    ("output{}.dense.bias", "{}_mlp.fc2.bias"),
    ("output{}.LayerNorm.weight", "{}_mlp_norm.weight"),
    ("output{}.LayerNorm.bias", "{}_mlp_norm.bias"),
)
_LAYER = (
    ("attention.attention.qkv.weight", "attention.qkv.weight"),
    ("attention.attention.qkv.bias", "attention.qkv.bias"),
    ("attention.output.dense.weight", "attention.out.weight"),
    ("attention.output.dense.bias", "attention.out.bias"),
    ("attention.output.LayerNorm.weight", "norm.weight"),
    ("attention.output.LayerNorm.bias", "norm.bias"),
    ("crossattention.attention.query.weight", "cross.q.weight"),
    ("crossattention.attention.query.bias", "cross.q.bias"),
    ("crossattention.attention.kv.weight", "cross.kv.weight"),
    ("crossattention.attention.kv.bias", "cross.kv.bias"),
    ("crossattention.output.dense.weight", "cross.out.weight"),
    ("crossattention.output.dense.bias", "cross.out.bias"),
    ("crossattention.output.LayerNorm.weight", "cross_norm.weight"),
    ("crossattention.output.LayerNorm.bias", "cross_norm.bias"),
    *((a.format("_query"), b.format("query")) for a, b in _MLP),
    *((a.format(""), b.format("text")) for a, b in _MLP),
)
LAYERS = layers("encoder.layer", "blocks", _LAYER)
"""Layers of ``transformers``' Q-Formers and ours, once queries, keys and values are together (:func:`fused`)."""

BLIP2 = KeyMap((("layernorm.weight", "norm.weight"), ("layernorm.bias", "norm.bias"), *LAYERS))
"""``Blip2QFormerModel``, to a :class:`QueryTransformer` but its queries and embeddings."""
INSTRUCTBLIP = KeyMap(
    (
        ("embeddings.word_embeddings.weight", "embed.weight"),
        ("embeddings.position_embeddings.weight", "pos_embed"),
        ("embeddings.layernorm.weight", "norm.weight"),
        ("embeddings.layernorm.bias", "norm.bias"),
        *LAYERS,
    )
)
"""``InstructBlipQFormerModel``, to a :class:`QueryTransformer` but its queries; the last layer's network for text,
whose output nothing reads, may be missing in ours."""

_KEY_VALUE = ("key", "value")


def fused(theirs: Mapping[str, Tensor]) -> Weights:
    """Weights of ``transformers``' Q-Former, with one layer for queries, keys and values of self-attention, and one
    for keys and values of cross-attention."""
    crossing = {name: tensor for name, tensor in theirs.items() if ".crossattention." in name}
    own = {name: tensor for name, tensor in theirs.items() if name not in crossing}
    return fuse(own) | fuse(crossing, _KEY_VALUE, "kv")


def unfused(fused: Mapping[str, Tensor]) -> Weights:
    """The inverse of :func:`fused`."""
    return unfuse(unfuse(fused), _KEY_VALUE, "kv")
