"""Exact attention of a sequence whose tokens are shared out among processes: keys and values travel round a ring.

Liu, Zaharia and Abbeel 2023, "Ring Attention with Blockwise Transformers for Near-Infinite Context". Every process
keeps the queries of its tokens and attends to one part of the keys at a time, while the next part is on its way. The
work is that of all pairs; a process holds two parts of keys and values, never all. In the backward pass the gradients
of keys and values travel with them, and are back where they belong after a whole round.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.nn.blockwise import BLOCK, Gradients, Part, Rule, RunningSoftmax
from filmstrip.protocols import RingOfProcesses, StandInForRing


def own_positions(length: int, rank: int, processes: int, *, striped: bool = False) -> range:
    """The positions of a sequence that a process has: adjacent ones, or every so many (``striped``).

    With adjacent ones most causal attention falls to the last process; stripes share it out evenly (Brandon et al.
    2023, "Striped Attention").

    Raises:
        ValueError: the length is not a multiple of the number of processes.
    """
    if length % processes:
        raise ValueError(f"a sequence of {length} tokens cannot be shared evenly among {processes} processes")
    if striped:
        return range(rank, length, processes)
    share = length // processes
    return range(rank * share, (rank + 1) * share)


def own_tokens(x: Tensor, ring: RingOfProcesses, *, dim: int = 1) -> Tensor:
    """Those of the tokens along an axis that this process has; see :func:`own_positions`."""
    own = own_positions(x.shape[dim], ring.rank, ring.size, striped=ring.striped)
    return x.movedim(dim, 0)[own.start : own.stop : own.step].movedim(0, dim)


def own_of_padded(x: Tensor, ring: RingOfProcesses, dim: int = 1) -> Tensor:
    """This process's tokens along an axis (from the front), of tokens that zeros make a multiple of the processes."""
    return own_tokens(F.pad(x, (0, 0) * (x.ndim - 1 - dim) + (0, -x.shape[dim] % ring.size)), ring, dim=dim)


def all_tokens(own: Tensor, ring: RingOfProcesses, *, dim: int = 1) -> Tensor:
    """The tokens of all processes along an axis, in order, from those of each: the inverse of :func:`own_tokens`.

    Every process must call it, and its backward pass. What a process has gets the sum of all processes' gradients, so
    that the mean of parameters' gradients over processes is that of a loss which each of them computes whole.
    """
    return _AllTokens.apply(own, ring, dim)  # type: ignore[no-any-return]  # torch does not say what it returns


class _AllTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, ring: RingOfProcesses, dim: int) -> Tensor:
        ctx.ring, ctx.dim = ring, dim
        parts = ring.gather(own)
        if not ring.striped:
            return torch.cat(parts, dim=dim)
        at = dim % own.ndim
        return torch.stack(parts, dim=at + 1).flatten(at, at + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        return own_tokens(ctx.ring.sum(gradients[0]), ctx.ring, dim=ctx.dim), None, None


def ring_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring: RingOfProcesses,
    *,
    causal: bool = True,
    document: Tensor | None = None,
    rule: Rule | None = None,
    block: int = BLOCK,
) -> Tensor:
    """Attention ``B H N D`` of this process's queries over the keys and values of all, each ``B H N D``.

    Every process of the ring must call it, and its backward pass, with as many tokens; positions are those of
    :func:`own_positions`, and rotary angles must be applied by them before. ``document`` (``B N``) are the documents
    of this process's tokens, which attend to their own document alone, ``rule`` says by positions in the whole
    sequence what is attended to besides. Keys and values may have fewer heads than queries, each serving as many.
    """
    if isinstance(ring, StandInForRing):
        return ring.attend(q, k, v)
    with torch.autocast(q.device.type, enabled=False):  # a block's scores stay float32
        return _RingAttention.apply(q, k, v, ring, causal, document, rule, block)  # type: ignore[no-any-return]


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        ring: RingOfProcesses,
        causal: bool,
        document: Tensor | None,
        rule: Rule | None,
        block: int,
    ) -> Tensor:
        softmax = RunningSoftmax(q, k.shape[1], v.shape[3], block=block)
        queries = _part(ring, ring.rank, q.shape[2], document, rule)
        held = [k, v] if document is None else [k, v, document]
        for step in range(ring.size):
            last = step == ring.size - 1
            arriving = None if last else ring.start(held)
            keys = _part(ring, ring.rank - step, q.shape[2], None if document is None else held[2])
            softmax.add(held[0], held[1], queries, keys, causal)
            if arriving is not None:
                held = arriving()
        out, lse = softmax.result()
        ctx.save_for_backward(q, k, v, out, lse, document)
        ctx.ring, ctx.causal, ctx.rule, ctx.block = ring, causal, rule, block
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, document = ctx.saved_tensors
        ring, length = ctx.ring, q.shape[2]
        own = Gradients(q, out, lse, gradients[0], k.shape[1], block=ctx.block)
        queries = _part(ring, ring.rank, length, document, ctx.rule)
        held = [k, v] if document is None else [k, v, document]
        returning = None
        for step in range(ring.size):
            last = step == ring.size - 1
            arriving = None if last else ring.start(held)
            keys = _part(ring, ring.rank - step, length, None if document is None else held[2])
            found = own.add(held[0], held[1], queries, keys, ctx.causal)
            if returning is not None:  # what the processes before found for these keys
                found = tuple(one.add_(other) for one, other in zip(returning(), found))
            if ring.size > 1:
                returning = ring.start(found)
            if arriving is not None:
                held = arriving()
        of_keys, of_values = found if returning is None else returning()
        of_queries = own.of_queries.flatten(1, 2)
        return of_queries.to(q.dtype), of_keys.to(k.dtype), of_values.to(v.dtype), None, None, None, None, None


def attend_to_shares(q: Tensor, k: Tensor, v: Tensor, ring: RingOfProcesses, allowed: Tensor | None = None) -> Tensor:
    """Attention ``B H N D`` of queries that all processes have to the keys and values that are shared out among them.

    ``k`` and ``v`` (``B H K D``) are this process's, perhaps none, and ``allowed`` (``B N K`` bool) says which of its
    keys are attended to. The maximum of all processes' scores is found first, and then the sums of their numerators
    and denominators, in float32. Nothing is differentiated.
    """
    grouped = q.unflatten(1, (k.shape[1], -1)).float() * q.shape[-1] ** -0.5
    scores = torch.einsum("bhgnd,bhkd->bhgnk", grouped, k.float())
    if allowed is not None:
        scores = scores.masked_fill(~allowed[:, None, None], float("-inf"))
    none = scores.new_full((*scores.shape[:-1], 1), float("-inf"))  # the maximum of a process without keys
    most = ring.maximum(torch.cat([none, scores], dim=-1).amax(dim=-1, keepdim=True))
    weights = (scores - most.masked_fill(most == float("-inf"), 0.0)).exp()
    part = torch.einsum("bhgnk,bhkd->bhgnd", weights, v.float())
    both = torch.cat([part, weights.sum(dim=-1, keepdim=True)], dim=-1)
    numerator, denominator = ring.sum(both).split([v.shape[3], 1], dim=-1)
    return (numerator / denominator.masked_fill(denominator == 0, 1.0)).flatten(1, 2).to(q.dtype)


def _part(ring: RingOfProcesses, rank: int, length: int, document: Tensor | None, rule: Rule | None = None) -> Part:
    """The tokens of a process, by its rank up to multiples of the ring's size."""
    positions = own_positions(length * ring.size, rank % ring.size, ring.size, striped=ring.striped)
    return Part(positions, document, rule)
