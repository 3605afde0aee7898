"""Multi-head attention, the one module behind all attention in this package."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from filmstrip.nn.blockwise import attend_in_blocks
from filmstrip.nn.linear import Linear, biased
from filmstrip.nn.masks import Mask
from filmstrip.nn.ring_attention import attend_to_shares, own_positions, ring_attention
from filmstrip.nn.rotary import rotate
from filmstrip.protocols import RingOfProcesses

_LARGE_BLOCK = 128
"""Minimum block size in tokens at which one attention call per block costs less than one masked call."""
_DOCUMENT_BLOCK = 128
"""Block size in tokens at which attention within documents of 40 to 1000 tokens costs little on a CPU."""
_SHORT = 256
"""Maximum number of keys for which a CPU takes longer to attend in bfloat16 than in float32, gradients included."""

Instead = Callable[[Tensor, Tensor, Tensor], Tensor | None]
"""Each head's output ``B H Q D`` from its queries, keys and values, by whoever looks at attention from outside, or
decides it; none for what the layer itself would give."""


class KVCache:
    """Keys and values of the tokens processed so far, for one attention layer; memory is allocated once."""

    def __init__(
        self,
        batch: int,
        num_heads: int,
        room: int,
        head_dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.keys = torch.empty(batch, num_heads, room, head_dim, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (``B H N D``); returns all so far.

        Raises:
            ValueError: the cache cannot hold ``N`` more tokens.
        """
        end = self.length + keys.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError(f"the cache holds at most {self.keys.shape[2]} tokens, {end} were provided")
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Row ``i`` (``rows`` ``B``) continues with what row ``rows[i]`` holds."""
        self.keys, self.values = self.keys[rows], self.values[rows]

    def rewind(self, length: int) -> None:
        """Drop all tokens but the first ``length``."""
        self.length = min(self.length, length)


class StaticKVCache:
    """The keys and values of a :class:`KVCache` as tensors of one shape: every further step has static shapes.

    Attention reads all of their room, and masks what holds no token yet. The number of tokens (``length``) is a
    tensor, too: a compiled step is the same for all positions.
    """

    def __init__(self, cache: KVCache) -> None:
        """Take over the memory of ``cache``, whose unused room becomes zeros."""
        self.keys, self.values = cache.keys, cache.values
        for held in (self.keys, self.values):
            held[:, :, cache.length :] = 0  # a weight of zero times what memory happens to hold may be no number
        self.length = torch.tensor(cache.length, device=cache.keys.device)

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (``B H N D``), for which there must be room; returns all of the room."""
        at = self.length + torch.arange(keys.shape[2], device=keys.device)
        self.keys.index_copy_(2, at, keys.to(self.keys.dtype))
        self.values.index_copy_(2, at, values.to(self.values.dtype))
        self.length = self.length + keys.shape[2]
        return self.keys, self.values


class SharedKVCache(KVCache):
    """Keys and values of which each of several processes holds a share, so that together they hold longer sequences.

    Every process is given the same new token, which one of them keeps; each attends to what it has, and their parts
    are merged (as in Shyam et al. 2024, "Tree Attention"). The first tokens are shared out as :func:`own_positions`
    says, and each process is given its own of them.
    """

    def __init__(
        self,
        batch: int,
        num_heads: int,
        room: int,
        head_dim: int,
        *,
        ring: RingOfProcesses,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """``room``: the number of tokens of all processes."""
        super().__init__(batch, num_heads, -(-room // ring.size) + 1, head_dim, dtype=dtype, device=device)
        self.ring = ring
        self.positions = torch.empty(0, dtype=torch.int64, device=device)
        """Positions in the whole sequence of the tokens that this process has."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Tensor:
        """Attention ``B H N D`` of new tokens to those so far and themselves, which are kept.

        The first time ``N`` is this process's share of them, and later one, the same in all.
        """
        ring, start = self.ring, self.length
        if start == 0:
            total = q.shape[2] * ring.size
            own = own_positions(total, ring.rank, ring.size, striped=ring.striped)
            self._keep(k, v, own)
            self.length = total
            rules = {"causal": True} if mask is None or mask.plain_causal else {"causal": False, "rule": mask.at}
            return ring_attention(q, k, v, ring, **rules)
        assert q.shape[2] == 1, "after the first tokens they come one by one"
        if start % ring.size == ring.rank:
            self._keep(k, v, range(start, start + 1))
        self.length = start + 1
        held = len(self.positions)
        allowed = None
        if mask is not None and not mask.plain_causal:
            allowed = mask.at(torch.tensor([start], device=q.device), self.positions)
        return attend_to_shares(q, self.keys[:, :, :held], self.values[:, :, :held], ring, allowed)

    def _keep(self, k: Tensor, v: Tensor, positions: range) -> None:
        before, after = len(self.positions), len(self.positions) + len(positions)
        self.keys[:, :, before:after] = k
        self.values[:, :, before:after] = v
        own = torch.arange(positions.start, positions.stop, positions.step, device=self.positions.device)
        self.positions = torch.cat([self.positions, own])

    def rewind(self, length: int) -> None:
        """Drop all tokens but the first ``length``."""
        kept = self.positions < length
        at = kept.nonzero()[:, 0]
        self.keys[:, :, : len(at)] = self.keys[:, :, at]
        self.values[:, :, : len(at)] = self.values[:, :, at]
        self.positions, self.length = self.positions[kept], min(self.length, length)


class HeadsNorm(nn.RMSNorm):
    """RMS normalisation of all heads' queries or keys of a token together: ``B H N D``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``B H N D``."""
        # In the weight's precision: of two precisions torch has no fused operation.
        together = super().forward(rearrange(x, "b h n d -> b n (h d)").to(self.weight.dtype)).to(x.dtype)
        return rearrange(together, "b n (h d) -> b h n d", h=x.shape[1])


class Attention(nn.Module):
    """Scaled dot-product attention over ``B N D`` tokens, to themselves or to a context of another width.

    ``qkv_bias``: bias on queries, keys and values, on none, or on all but the keys (a constant added to every key
    changes nothing after the softmax); ``out_bias``: bias of the output projection. ``head_dim`` may differ from
    ``width / num_heads``; ``qk_norm`` applies RMS normalisation to each head's queries and keys, or to those of all
    heads ``together``, adding ``qk_norm_eps`` to the mean square (by default the least that counts). With
    ``num_kv_heads`` fewer heads of keys and values than of queries, each serves several heads of queries (grouped
    queries, Ainslie et al. 2023). ``score_scale`` multiplies the scores beside one over the root of ``head_dim``
    (muP: :mod:`filmstrip.models.decoder`). With ``context_width`` keys and values are always computed from
    ``context``, and the values' dimension per head may differ (``value_dim``).

    Raises:
        ValueError: the heads do not divide the width, or the queries' heads.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        num_kv_heads: int | None = None,
        qkv_bias: Literal["all", "no_key", "none"] = "all",
        qk_norm: bool | Literal["together"] = False,
        qk_norm_eps: float | None = None,
        out_bias: bool = True,
        score_scale: float = 1.0,
        context_width: int | None = None,
        value_dim: int | None = None,
    ) -> None:
        super().__init__()
        if head_dim is None and width % num_heads:
            raise ValueError(f"width {width} is not a multiple of {num_heads} heads: set head_dim")
        if num_heads % (num_kv_heads or num_heads):
            raise ValueError(f"{num_heads} heads are not a multiple of {num_kv_heads} heads of keys and values")
        if num_kv_heads not in (None, num_heads) and qkv_bias == "no_key":
            raise ValueError("grouped queries are for qkv_bias 'all' or 'none'")
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.head_dim = head_dim or width // num_heads
        self.score_scale = score_scale
        inner = num_heads * self.head_dim
        values = num_heads * (value_dim or self.head_dim)
        every = qkv_bias == "all"
        self.cross = context_width is not None
        if self.cross:
            self.q = Linear(width, inner, bias=qkv_bias != "none")
            self.kv = Linear(context_width, (inner + values) // (num_heads // self.num_kv_heads), bias=every)
        else:
            self.qkv = Linear(width, (num_heads + 2 * self.num_kv_heads) * self.head_dim, bias=every)
        partial = qkv_bias == "no_key"
        self.q_bias = nn.Parameter(torch.zeros(inner)) if partial and not self.cross else None
        self.v_bias = nn.Parameter(torch.zeros(values)) if partial else None
        norm, heads = (HeadsNorm, self.num_heads) if qk_norm == "together" else (nn.RMSNorm, 1)
        self.q_norm = norm(heads * self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        heads = self.num_kv_heads if qk_norm == "together" else 1
        self.k_norm = norm(heads * self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.out = Linear(values, width, bias=out_bias)

    def forward(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        mask: Mask | None = None,
        angles: Tensor | None = None,
        context_angles: Tensor | None = None,
        context_positions: Tensor | None = None,
        cache: KVCache | StaticKVCache | None = None,
        instead: Instead | None = None,
    ) -> Tensor:
        """Attend from ``x`` (``B N D``) to itself, to ``context`` (``B M C``), or to all that ``cache`` holds.

        ``angles`` (and ``context_angles``, for the keys of a context) are rotary angles from
        :class:`~filmstrip.nn.rotary.Rotary`; ``context_positions`` (``M C``) are added to what keys are computed
        from, and not to what values are. With a cache, mask positions count from its first token. ``instead`` is
        asked for the heads' outputs first.
        """
        q, k, v = self._project(x, context, context_positions)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q = rotate(q, angles)
        key_angles = context_angles if self.cross else angles
        if key_angles is not None:
            k = rotate(k, key_angles)
        if self.score_scale != 1:
            q = q * self.score_scale
        offset: int | Tensor = 0
        if isinstance(cache, SharedKVCache):
            return self.out(rearrange(cache.attend(q, k, v, mask), "b h n d -> b n (h d)"))
        if cache is not None:
            offset = cache.length
            k, v = cache.extend(k, v)
        heads = None if instead is None else instead(q, k, v)
        if heads is None:
            heads = self.attend(q, k, v, mask, offset)
        return self.out(rearrange(heads, "b h n d -> b n (h d)"))

    def read(self, x: Tensor, keys: Tensor, values: Tensor, mask: Mask | None = None) -> Tensor:
        """Attend from ``x`` (``B N D``) to a context by its :meth:`keys_and_values`, which serve several calls.

        Raises:
            ValueError: this attention was built without a context.
        """
        if not self.cross:
            raise ValueError("this attention was built without context_width: it reads no context")
        q = self.q_norm(rearrange(self.q(x), "b n (h d) -> b h n d", h=self.num_heads))
        if self.score_scale != 1:
            q = q * self.score_scale
        return self.out(rearrange(self.attend(q, self.k_norm(keys), values, mask), "b h n d -> b n (h d)"))

    def weights(self, x: Tensor, queries: int, valid: Tensor | None = None) -> Tensor:
        """Weights of self-attention from the first ``queries`` of ``B N D`` tokens to all, ``B H queries N``.

        Tokens that are not ``valid`` (``B N`` bool) are not attended to.
        """
        q, k, _ = self._project(x, None)
        q, k = self.q_norm(q[:, :, :queries]), self.k_norm(k)
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None], float("-inf"))
        return scores.softmax(dim=-1)

    def weights_at(
        self, x: Tensor, index: Tensor, *, angles: Tensor | None = None, allowed: Tensor | None = None
    ) -> Tensor:
        """Weights ``B H N`` of self-attention from the token at ``index`` (``B``) of ``B N D`` to those that are
        ``allowed`` (``B N`` bool)."""
        q, k, _ = self._project(x, None)
        q = q.gather(2, index[:, None, None, None].expand(-1, q.shape[1], 1, q.shape[3]))
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q = rotate(q, angles.gather(1, index[:, None, None].expand(-1, 1, angles.shape[2])))
            k = rotate(k, angles)
        k = k.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        scores = (q @ k.transpose(-2, -1))[:, :, 0].float() * (self.score_scale * self.head_dim**-0.5)
        if allowed is not None:
            scores = scores.masked_fill(~allowed[:, None], float("-inf"))
        return scores.softmax(dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None = None, offset: int | Tensor = 0) -> Tensor:
        """Each head's output, ``B H N D``: every query attends to all keys that the mask allows."""
        return attend(q, k, v, mask, offset)

    def _project(
        self, x: Tensor, context: Tensor | None, context_positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ``B H N D``."""
        if self.cross:
            if context is None:
                raise ValueError("this attention was built with context_width: it needs a context")
            q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.num_heads)
            return q, *self.keys_and_values(context, context_positions)
        if self.q_bias is None:
            qkv = self.qkv(x)
        else:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
            qkv = biased(self.qkv, x, bias)
        q, k, v = rearrange(qkv, "b n (h d) -> b h n d", d=self.head_dim).split(
            (self.num_heads, self.num_kv_heads, self.num_kv_heads), dim=1
        )
        return q, k, v

    def keys_and_values(self, context: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of a context ``B M C``, each ``B H M D``; ``positions`` (``M C``) are the keys' alone."""
        inner = self.num_kv_heads * self.head_dim
        if self.v_bias is None:
            kv = self.kv(context)
        else:
            kv = biased(self.kv, context, F.pad(self.v_bias, (inner, 0)))
        k, v = kv.tensor_split([inner], dim=2)
        if positions is not None:
            k = k + self.kv.first(positions, inner)
        k, v = (rearrange(x, "b n (h d) -> b h n d", h=self.num_kv_heads) for x in (k, v))
        return k, v


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask | None = None,
    offset: int | Tensor = 0,
    *,
    bias: Tensor | None = None,
    allowed: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention of ``B H Q D`` queries, at positions ``offset ..``, over ``B H K D`` keys.

    ``bias`` is added to the scaled scores; it broadcasts to ``B H Q K``, and may be minus infinity where a query must
    not attend to a key. ``allowed`` (bool, broadcasts likewise) is for small masks that positions alone do not
    determine; nothing else can be combined with it but ``dropout``, the rate at which weights are dropped. Keys and
    values may have fewer heads than queries, each serving as many heads of queries. An ``offset`` that is a tensor is
    that of a :class:`StaticKVCache`, with a mask that excludes the keys behind the queries.
    """
    if isinstance(offset, Tensor):
        assert mask is not None, "there is room behind the queries that nothing was written to"
        allowed, mask, offset = mask.dense(q.shape[2], k.shape[2], q.device, offset), None, 0
    if mask is not None and mask.ring is not None:
        rules = {"causal": mask.within_causal, "document": mask.documents, "rule": mask.by_positions}
        return ring_attention(q, k, v, mask.ring, **rules)
    queries, keys = q.shape[2], k.shape[2]
    if _is_slow_in_bfloat16(q, keys):
        with torch.autocast("cpu", enabled=False):
            x = attend(q.float(), k.float(), v.float(), mask, offset, bias=bias, allowed=allowed, dropout=dropout)
        return x.to(q.dtype)
    grouped = q.shape[1] != k.shape[1]
    if allowed is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout, enable_gqa=grouped)
    if bias is not None:
        if mask is not None:
            bias = bias.masked_fill(~mask.dense(queries, keys, q.device, offset), float("-inf"))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), enable_gqa=grouped)
    if mask is not None and mask.plain_causal and (queries == 1 and offset == keys - 1):
        mask = None  # the newest token attends to everything
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
    if mask.plain_causal and offset == 0 and queries == keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    if mask.block is not None and mask.block >= _LARGE_BLOCK and not (queries % mask.block or offset % mask.block):
        return _attend_by_blocks(q, k, v, mask.block, offset)
    if q.is_cuda:
        blocks = mask.blocks(queries, keys, q.device, offset)
        return _flex_attention()(q, k, v, block_mask=blocks, enable_gqa=grouped)
    # Which blocks are computed depends on the documents, so that a compiled step would not be static.
    if mask.documents is not None and offset == 0 and queries == keys and not torch.compiler.is_compiling():
        causal = mask.within_causal
        return attend_in_blocks(q, k, v, causal=causal, document=mask.documents, block=_DOCUMENT_BLOCK)
    dense = mask.dense(queries, keys, q.device, offset)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=dense, enable_gqa=grouped)


def _is_slow_in_bfloat16(q: Tensor, keys: int) -> bool:
    learns = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return learns and q.device.type == "cpu" and q.dtype == torch.bfloat16 and keys <= _SHORT


def _attend_by_blocks(q: Tensor, k: Tensor, v: Tensor, block: int, offset: int) -> Tensor:
    """Block-causal attention without a mask: each block of queries to the keys up to its end, and to no others."""
    ends = range(offset + block, offset + q.shape[2] + 1, block)
    parts = [
        F.scaled_dot_product_attention(queries, k[:, :, :end], v[:, :, :end], enable_gqa=q.shape[1] != k.shape[1])
        for queries, end in zip(q.split(block, dim=2), ends)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


@cache
def _flex_attention():
    """FlexAttention as one fused kernel: without compilation it would build the whole score matrix."""
    return torch.compile(flex_attention, dynamic=False)
