"""Exact attention of a sequence whose tokens are shared out among processes: keys and values travel round a ring.

Liu, Zaharia and Abbeel 2023, "Ring Attention with Blockwise Transformers for Near-Infinite Context". Every process
keeps the queries of its tokens and attends to one part of the keys at a time, while the next part is on its way. The
work is that of all pairs; a process holds two parts of keys and values, never all. In the backward pass the gradients
of keys and values travel with them, and are back where they belong after a whole round.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from filmstrip.nn.blockwise import BLOCK, Gradients, Part, RunningSoftmax
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


def own_tokens(x: Tensor, ring: RingOfProcesses, *, dim: int = 1, striped: bool = False) -> Tensor:
    """Those of the tokens along an axis that this process has; see :func:`own_positions`."""
    own = own_positions(x.shape[dim], ring.rank, ring.size, striped=striped)
    return x.movedim(dim, 0)[own.start : own.stop : own.step].movedim(0, dim)


def ring_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ring: RingOfProcesses,
    *,
    causal: bool = True,
    document: Tensor | None = None,
    striped: bool = False,
    block: int = BLOCK,
) -> Tensor:
    """Attention ``B H N D`` of this process's queries over the keys and values of all, each ``B H N D``.

    Every process of the ring must call it, and its backward pass, with as many tokens; positions are those of
    :func:`own_positions`, and rotary angles must be applied by them before. ``document`` (``B N``) are the documents
    of this process's tokens, which attend to their own document alone. Keys and values may have fewer heads than
    queries, each serving as many.
    """
    if isinstance(ring, StandInForRing):
        return ring.attend(q, k, v)
    with torch.autocast(q.device.type, enabled=False):  # a block's scores stay float32
        return _RingAttention.apply(q, k, v, ring, causal, document, striped, block)  # type: ignore[no-any-return]


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
        striped: bool,
        block: int,
    ) -> Tensor:
        softmax = RunningSoftmax(q, k.shape[1], v.shape[3], block=block)
        queries = _part(ring, ring.rank, q.shape[2], document, striped)
        held = [k, v] if document is None else [k, v, document]
        for step in range(ring.size):
            last = step == ring.size - 1
            arriving = None if last else ring.start(held)
            keys = _part(ring, ring.rank - step, q.shape[2], None if document is None else held[2], striped)
            softmax.add(held[0], held[1], queries, keys, causal)
            if arriving is not None:
                held = arriving()
        out, lse = softmax.result()
        ctx.save_for_backward(q, k, v, out, lse, document)
        ctx.ring, ctx.causal, ctx.striped, ctx.block = ring, causal, striped, block
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, document = ctx.saved_tensors
        ring, length = ctx.ring, q.shape[2]
        own = Gradients(q, out, lse, gradients[0], k.shape[1], block=ctx.block)
        queries = _part(ring, ring.rank, length, document, ctx.striped)
        held = [k, v] if document is None else [k, v, document]
        returning = None
        for step in range(ring.size):
            last = step == ring.size - 1
            arriving = None if last else ring.start(held)
            keys = _part(ring, ring.rank - step, length, None if document is None else held[2], ctx.striped)
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


def _part(ring: RingOfProcesses, rank: int, length: int, document: Tensor | None, striped: bool) -> Part:
    """The tokens of a process, by its rank up to multiples of the ring's size."""
    return Part(own_positions(length * ring.size, rank % ring.size, ring.size, striped=striped), document)
