"""What attention along a ring of processes takes, counted without doing it.

Few blocks of few processes are counted one by one, and rows of any length from them: what a process does grows with
the pairs of blocks of queries and keys and with its tokens, both times the processes, and with its tokens alone.
Counted is the last process, which has most to do where each has adjacent tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from filmstrip.measure.traced_step import CountingRing, RingCall, Traced, TracedStep

AlongRing = Callable[[Tensor, Tensor, Tensor, CountingRing], Tensor]
"""Causal attention ``B H N D`` along a ring."""


@dataclass(frozen=True, kw_only=True)
class RingCost:
    """What a forward pass, a backward pass, or both of attention along a ring take of one process."""

    operations: float
    """Floating-point operations; two for a multiply-add."""
    traffic: float
    """Bytes read and written."""
    sent: float
    """Bytes sent to the next process."""
    peak: float
    """Maximum number of bytes alive at once, beside inputs and the output's gradient."""


def with_ring(step: TracedStep, attend: AlongRing, *, ring: int, block: int, striped: bool = False) -> TracedStep:
    """A step with what its calls of attention along a ring take, of blocks of so many queries and keys."""
    for call, (forward, backward) in step.ring_calls.items():
        costs = _costs(attend, call, ring, block, striped)
        plain = _count(lambda q, k, v, ring: _fused(q, k, v), call, call.queries[2], 1, striped)
        extra = [cost.peak - one.peak for cost, one in zip(costs, plain)]
        step = replace(
            step,
            early=max(step.early, *(at + more for at, more in zip(step.early_at_ring, extra) if at)),
            late=max(step.late, *(at + more for at, more in zip(step.late_at_ring, extra) if at)),
            attention=step.attention + forward * costs[0].operations + backward * costs[1].operations,
            traffic=step.traffic + forward * costs[0].traffic + backward * costs[1].traffic,
            sent=step.sent + forward * costs[0].sent + backward * costs[1].sent,
        )
    return replace(step, ring_calls={})


def block_pairs(tokens: int, block: int) -> int:
    """Pairs of blocks of queries and keys among so many tokens, of which some query is not before some key."""
    count = -(-tokens // block)
    return count * (count + 1) // 2


_MOST_PAIRS = 40
"""Maximum number of pairs of blocks that are counted one by one."""
_RINGS = (3, 4)
"""Sizes of rings that are counted; from three on as many blocks are on their way at once."""
_BLOCKS = (2, 3)
"""Numbers of blocks of a process that are counted; a single one is the whole tensor, and is not copied."""


def _costs(attend: AlongRing, call: RingCall, ring: int, block: int, striped: bool) -> tuple[RingCost, RingCost]:
    """Costs of a forward and of a backward pass."""
    own = call.queries[2]
    if ring * block_pairs(own, block) <= _MOST_PAIRS:
        return _count(attend, call, own, ring, striped)
    lengths = [count * block for count in _BLOCKS]
    counted = [[_count(attend, call, length, size, striped) for size in _RINGS] for length in lengths]
    found = []
    for way in range(2):
        values = {}
        for field in fields(RingCost):
            table = [[float(getattr(cost[way], field.name)) for cost in row] for row in counted]
            if field.name == "peak":
                each = (table[1][0] - table[0][0]) / block
                values[field.name] = table[0][0] + each * (own - lengths[0])
            else:
                values[field.name] = _extrapolated(table, own, ring, block, striped)
        found.append(RingCost(**values))
    return found[0], found[1]


def _extrapolated(table: Sequence[Sequence[float]], own: int, ring: int, block: int, striped: bool) -> float:
    """A value for ``own`` tokens, from those for few blocks and two rings.

    It is ``(a n + b pairs) G + c n`` for ``n`` blocks, which make so many pairs with those of each of ``G`` others,
    and fewer among themselves where tokens are adjacent.
    """

    def pairs(tokens: int) -> tuple[int, int]:
        within = block_pairs(tokens, block)
        return within, within if striped else (-(-tokens // block)) ** 2

    (few_within, few), (_, more) = (pairs(count * block) for count in _BLOCKS)
    first, second = (row[1] - row[0] for row in table)
    by_pair = (second / _BLOCKS[1] - first / _BLOCKS[0]) / (more / _BLOCKS[1] - few / _BLOCKS[0])
    by_block = (first - by_pair * few) / _BLOCKS[0]
    rest = (table[0][0] - _RINGS[0] * first - by_pair * (few_within - few)) / _BLOCKS[0]
    blocks, (within, between) = own / block, pairs(own)
    return ring * (by_pair * between + by_block * blocks) + rest * blocks + by_pair * (within - between)


def _count(attend: AlongRing, call: RingCall, own: int, ring: int, striped: bool) -> tuple[RingCost, RingCost]:
    with FakeTensorMode():
        q, k, v = (
            torch.empty(*shape[:2], own, shape[3], dtype=call.dtype, requires_grad=True)
            for shape in (call.queries, call.keys, call.values)
        )
        counting = CountingRing(ring, striped=striped)
        forward = Traced([q, k, v])
        with forward:
            out = attend(q, k, v, counting)
        sent, grad = counting.sent, torch.empty_like(out)
        backward = Traced([q, k, v, grad])
        backward.now = backward.peak = forward.now  # what the forward pass keeps
        with backward:
            out.backward(grad)
    return _cost(forward, sent), _cost(backward, counting.sent - sent)


def _cost(traced: Traced, sent: float) -> RingCost:
    return RingCost(
        operations=traced.products + traced.attention, traffic=traced.traffic, sent=sent, peak=traced.peak
    )


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
