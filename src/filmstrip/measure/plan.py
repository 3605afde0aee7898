"""What a training step asks of each process, before anyone pays for it: memory, operations, transfer, time.

What a step does is counted by :mod:`filmstrip.measure.traced_step`; here are the processes' shares of it, and what a
machine needs for them at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from filmstrip.measure.accelerators import Accelerator
from filmstrip.measure.traced_step import TracedStep


class Weight(NamedTuple):
    """One parameter."""

    name: str
    bytes: int
    rows: int
    """Size of its first axis, along which it is sharded."""
    trained: bool
    block: int | None
    """Number of the network's block that it belongs to; none outside of them."""
    whole: bool = False
    """Whether every process keeps all of it."""

    def share(self, processes: int) -> float:
        """The part that one of so many processes has at most."""
        return 1.0 if self.whole else -(-self.rows // processes) / self.rows


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How processes share a step."""

    ranks: int = 1
    """Number of processes."""
    context: int = 1
    """Number of them that share the tokens of each row."""
    sharded: bool = False
    """Whether weights are sharded (FSDP2) or replicated (DDP)."""
    accumulate: int = 1
    """Number of micro-batches of a step."""
    rows: int
    """Number of rows of a micro-batch, of one process or of those that share its tokens."""
    tokens: int | None = None
    """Number of tokens of a row that processes can share; none for other samples."""
    average: bool = False
    """Whether an average of the weights (EMA) is kept."""

    @property
    def data(self) -> int:
        """Number of processes, or groups of them, that share the rows of a batch."""
        return self.ranks // self.context


class Part(NamedTuple):
    """A part of a process's memory."""

    name: str
    bytes: float
    counts: bool = True
    """Whether it counts for the total; otherwise it is part of another."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What each process needs for a step."""

    layout: Layout
    memory: tuple[Part, ...]
    products: float
    """Floating-point operations of a step (two for a multiply-add) but those of attention."""
    attention: float
    """Floating-point operations of attention."""
    traffic: float
    """Bytes read and written in its own memory."""
    ring: float
    """Bytes sent along the ring."""
    exchange: float
    """Bytes sent to exchange gradients, and weights where they are sharded."""

    @property
    def total(self) -> float:
        """Bytes of memory at once."""
        return sum(part.bytes for part in self.memory if part.counts)


def plan_of(step: TracedStep, weights: Sequence[Weight], layout: Layout) -> Plan:
    """The plan of a process whose micro-batch takes ``step``."""
    ranks = layout.ranks
    parts = ranks if layout.sharded else 1
    own = sum(each.bytes * each.share(parts) for each in weights)
    trained = sum(each.bytes * each.share(parts) for each in weights if each.trained)
    all_trained = sum(each.bytes for each in weights if each.trained)
    buffers = step.weights - sum(each.bytes for each in weights)
    share = trained / all_trained if all_trained else 0.0
    memory = [
        Part("weights", own + buffers),
        Part("of which trained", trained, counts=False),
        Part("optimiser state", step.optimiser * share),
        Part("average of weights", trained if layout.average else 0.0),
        Part("batch", step.batch),
        Part("activations and gradients at their peak", step.peak),
        Part("of which activations for the backward pass", step.kept, counts=False),
        Part("gradients at its end", step.gradients * share, counts=False),
    ]
    exchange = 0.0
    if ranks > 1 and layout.sharded:
        blocks: dict[int | None, int] = {}
        for each in weights:
            if not each.whole:
                blocks[each.block] = blocks.get(each.block, 0) + each.bytes
        outside = blocks.pop(None, 0)
        # A block's weights are there while it runs, and the next one's arrive meanwhile.
        gathered = outside + 2 * max(blocks.values(), default=0)
        memory.append(Part("weights of other processes, gathered", gathered))
        whole = sum(each.bytes for each in weights if not each.whole)
        # Gathered for the forward and for the backward pass; outside blocks they stay in between.
        exchange = (ranks - 1) / ranks * (2 * whole - outside + all_trained)
    elif ranks > 1:
        exchange = 2 * (ranks - 1) / ranks * all_trained
    count = layout.accumulate
    if layout.sharded and ranks > 1:
        exchange *= count
    return Plan(
        layout=layout,
        memory=tuple(memory),
        products=step.products * count,
        attention=step.attention * count,
        traffic=step.traffic * count,
        ring=step.sent * count,
        exchange=exchange,
    )


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds that a process needs at least for each of what it does in a step; none where a rate is unknown."""

    compute: float
    memory: float
    ring: float | None
    exchange: float | None

    @property
    def step(self) -> float:
        """Seconds of a step if all of it overlaps: the longest of them."""
        return max(each for each in (self.compute, self.memory, self.ring, self.exchange) if each is not None)

    @property
    def limit(self) -> str:
        """What takes longest."""
        return max(((value, name) for name, value in vars(self).items() if value is not None))[1]


def times(plan: Plan, machine: Accelerator, rate: float) -> Times:
    """What a step takes at least, at ``rate`` FLOP/s."""
    ring, all_ranks = machine.link_of(plan.layout.context), machine.link_of(plan.layout.ranks)
    return Times(
        compute=(plan.products + plan.attention) / rate,
        memory=plan.traffic / machine.bandwidth,
        ring=_seconds(plan.ring, ring),
        exchange=_seconds(plan.exchange, all_ranks),
    )


def _seconds(sent: float, rate: float | None) -> float | None:
    if not sent:
        return 0.0
    return None if rate is None else sent / rate


def tokens_to_overlap(rate: float, link: float, *, bytes_each: int, queries_a_key: float = 1.0) -> float:
    """Tokens a process above which keys and values arrive before those there are attended to, without a mask.

    Liu et al. 2023 (Ring Attention, section 3): sending takes ``2 n d bytes`` of ``n`` keys and values of ``d``
    channels, attending to them ``4 n^2 d`` operations, times the ``queries_a_key`` heads that share each of keys.
    With a causal mask half of the pairs count, and so twice as many tokens are needed.
    """
    return rate * bytes_each / (2 * link * queries_a_key)
