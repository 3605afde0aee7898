"""The transformer of texts in models of vision and language: SigLIP's and CLIP's text towers, and BERT's kind.

Self-attention to both sides or, by a mask given at the call, to earlier tokens alone; norms before each part
(``pre``) or after it (``post``, BERT); cross-attention to visual tokens in every ``cross_every``-th layer. The same
network can run with other self-attention, which is all that BLIP's encoder and decoder of texts do not share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate, ShareBelowOne
from filmstrip.nn.attention import Attention, KVCache
from filmstrip.nn.initialisation import STD, LinearInit, init_linear, init_normal
from filmstrip.nn.masks import Mask
from filmstrip.nn.mlp import GELU, MLP


@dataclass(frozen=True, kw_only=True)
class TextArchitecture:
    """The configuration of a :class:`TextTransformer`."""

    vocab_size: Count
    """Number of token ids, at least; a larger vocabulary of the training data replaces it."""
    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    max_length: Count
    """Maximum number of tokens of a text."""
    mlp_ratio: Rate = 4.0
    """Width of a feed-forward network, relative to that of its tokens."""
    norm: Literal["pre", "post"] = "pre"
    """Place of the norms: before attention and feed-forward network, with one after the last block, or after each,
    with one after the embedding (BERT)."""
    norm_eps: Rate = 1e-6
    """Constant that normalisations add to the variance."""
    gelu: GELU = "exact"
    """Form of the activation."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate of the embedding and of each part's output."""
    cross_every: Count | None = None
    """Distance between layers with cross-attention; none for no such layers."""
    cross_from: CountOrZero = 0
    """Number of layers before the first with cross-attention."""
    context_width: Count | None = None
    """Channels of the tokens that cross-attention reads; none for those of the text."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""


KeysValues = tuple[Tensor, Tensor]
"""Keys and values of what one layer's cross-attention reads, each ``B H M D``."""


class SelfAttention(nn.Module):
    """Self-attention and its norm, in place of those of a :class:`TextBlock`."""

    def __init__(self, config: TextArchitecture) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config.width, config.num_heads)
        init_linear(self, config.linear_init)


class TextBlock(nn.Module):
    """Self-attention, cross-attention to a context if ``crosses``, and a feed-forward network, all residual."""

    def __init__(self, config: TextArchitecture, *, crosses: bool) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.before = config.norm == "pre"
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, config.num_heads)
        self.norm_cross = nn.LayerNorm(width, eps=eps) if crosses else None
        context = config.context_width or width
        self.cross_attention = Attention(width, config.num_heads, context_width=context) if crosses else None
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, round(width * config.mlp_ratio), gelu=config.gelu)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask | None = None,
        context: Tensor | None = None,
        context_mask: Mask | None = None,
        cache: KVCache | None = None,
        read: KeysValues | None = None,
        own: SelfAttention | None = None,
    ) -> Tensor:
        """``B L D`` to the same; ``context`` is ``B M C``, or ``read`` what is known of it already.

        Without both, cross-attention is left out. ``own`` takes the place of self-attention and its norm.
        """
        norm, attention = (self.norm1, self.attention) if own is None else (own.norm1, own.attention)
        x = self._added(x, norm, lambda y: attention(y, mask=mask, cache=cache))
        if self.cross_attention is not None:
            cross = self.cross_attention
            if read is not None:
                x = self._added(x, self.norm_cross, lambda y: cross.read(y, *read, context_mask))
            elif context is not None:
                x = self._added(x, self.norm_cross, lambda y: cross(y, context=context, mask=context_mask))
        return self._added(x, self.norm2, self.mlp)

    def _added(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        if self.before:
            return x + self.dropout(part(norm(x)))
        return norm(x + self.dropout(part(x)))


class TextTransformer(nn.Module):
    """Token ids to vectors, ``B L -> B L D``, with learned positions."""

    def __init__(self, config: TextArchitecture) -> None:
        super().__init__()
        self.width, self.depth, self.max_length = config.width, config.depth, config.max_length
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.pos_embed = nn.Parameter(torch.zeros(config.max_length, config.width))
        post = config.norm == "post"
        self.embed_norm = nn.LayerNorm(config.width, eps=config.norm_eps) if post else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(TextBlock(config, crosses=_crosses(config, i)) for i in range(config.depth))
        self.norm = nn.Identity() if post else nn.LayerNorm(config.width, eps=config.norm_eps)
        init_linear(self, config.linear_init)
        nn.init.normal_(self.embed.weight, std=STD)
        nn.init.normal_(self.pos_embed, std=STD)

    def forward(
        self,
        ids: Tensor,
        *,
        mask: Mask | None = None,
        context: Tensor | None = None,
        context_mask: Mask | None = None,
        caches: Sequence[KVCache] | None = None,
        read: Sequence[KeysValues | None] | None = None,
        own: Sequence[SelfAttention] | None = None,
        depth: int | None = None,
    ) -> Tensor:
        """Vectors ``B L D`` of ids ``B L``, or of embeddings ``B L D``.

        ``mask`` says what a token attends to, by default all, padding included; ``context`` (``B M C``) is read by
        the layers with cross-attention, as ``context_mask`` allows; ``read`` is what :meth:`keys_and_values` made of
        it before. Positions count on from what the ``caches`` hold. ``own`` is self-attention for each block in place
        of its own. With a ``depth`` only that many layers are run, whose output :meth:`fused` takes.

        Raises:
            ValueError: the text is longer than the network was built for.
        """
        start = caches[0].length if caches else 0
        end = start + ids.shape[1]
        if end > self.max_length:
            raise ValueError(f"this network was built for texts of up to {self.max_length} tokens, got {end}")
        x = ids if ids.is_floating_point() else self.embed(ids)
        x = self.dropout(self.embed_norm(x + self.pos_embed[start:end]))
        for i, block in enumerate(self.blocks[:depth]):
            x = block(
                x,
                mask=mask,
                context=context,
                context_mask=context_mask,
                cache=caches[i] if caches else None,
                read=read[i] if read else None,
                own=own[i] if own else None,
            )
        return x if depth is not None else self.norm(x)

    def fused(self, x: Tensor, context: Tensor, *, start: int, mask: Mask | None = None) -> Tensor:
        """Vectors ``B L D`` that layers from ``start`` on make of the output of the one before it, with a context."""
        for block in self.blocks[start:]:
            x = block(x, mask=mask, context=context)
        return self.norm(x)

    def keys_and_values(self, context: Tensor) -> list[KeysValues | None]:
        """What each layer's cross-attention makes of a context ``B M C``, for several calls; none where it has
        none."""
        crossing = (block.cross_attention for block in self.blocks)
        return [None if cross is None else cross.keys_and_values(context) for cross in crossing]

    def new_caches(self, batch: int, length: int) -> list[KVCache]:
        """Empty caches, one a block, for ``batch`` texts of up to ``length`` tokens."""
        like = self.embed.weight
        return [
            KVCache(batch, a.num_kv_heads, length, a.head_dim, dtype=like.dtype, device=like.device)
            for a in (block.attention for block in self.blocks)
        ]

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the embedding, ``i + 1`` for block ``i``, one more for the last norm."""
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0


def _crosses(config: TextArchitecture, layer: int) -> bool:
    behind = layer - config.cross_from
    return config.cross_every is not None and behind >= 0 and behind % config.cross_every == 0


class WordHead(nn.Module):
    """Logits of the next token as BERT has them: a layer, GELU, a norm, and the transposed embedding with a bias."""

    def __init__(self, width: int, vocab_size: int, *, norm_eps: float) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.apply(init_normal)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``... D`` and the embedding ``V D`` to ``... V``."""
        return F.linear(self.norm(F.gelu(self.fc(x))), embedding, self.bias)


def at_last(tokens: Tensor) -> Tensor:
    """The vector at the last position, padding or not: ``B L D -> B D`` (SigLIP)."""
    return tokens[:, -1]


def at_end(tokens: Tensor, lengths: Tensor) -> Tensor:
    """The vector at the end of each text, its last token before the padding: ``B L D -> B D`` (CLIP)."""
    here = F.one_hot(lengths - 1, tokens.shape[1]).to(tokens.dtype)
    return (here[:, None] @ tokens)[:, 0]
