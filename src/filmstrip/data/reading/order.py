"""The endless order of the training data, as pure functions of the run's seed.

Global position ``p`` is sample ``permutation(p // n)[p % n]``: no partial last batch, sets smaller than a batch work,
and a step number alone says where to resume. Of several sources in fixed ratios, each has such an order of its own,
and positions are shared out among them evenly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.data.reading.packing import Packing


class Pick(NamedTuple):
    """A sample, and the pass over its source in which it is read."""

    epoch: int
    index: int  # type: ignore[assignment]  # in place of a tuple's method of that name


class Draw(NamedTuple):
    """An entry of the endless order: the sample at ``position``, and its ``epoch``."""

    position: int
    epoch: int
    index: int  # type: ignore[assignment]  # in place of a tuple's method of that name
    others: tuple[Pick, ...] = ()
    """Further samples that make up one row together with the first one."""
    source: int = 0


@dataclass(frozen=True)
class Portion:
    """One of several sources in the order; its samples follow those of the source before it."""

    num_samples: int
    weight: float = 1.0
    """Share of the positions, relative to the other sources' weights."""
    together: int = 1
    """Number of samples at one position."""
    classes: np.ndarray | None = field(default=None, compare=False)
    """Class of each sample, ``N`` int64, where ``balance`` is not 0."""
    balance: float = 0.0
    """Power by which rarer classes are read more often: at 0 not at all, at 1 as often as common ones."""

    @property
    def num_rows(self) -> float:
        """Positions in one pass over the samples."""
        return self.num_samples / self.together


def derive_seed(*parts: int | str) -> int:
    """A seed in 0..2**63 that depends on all parts, and is the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of ``n`` samples in an epoch, ``n`` int64."""
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(n)


def shared_out(weights: Sequence[float], start: int) -> Iterator[tuple[int, int]]:
    """The source of every position from ``start`` on, without end, and how many positions it had before.

    Entry ``k`` of a source of weight ``w`` is due at time ``(k + 1/2) / w``; positions are all entries in the order
    of these times, a tie being the earlier source's. So after any number of positions each source has had its share
    up to a number below that of the sources. In exact fractions, since another rounding would be another order.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    # A time before which no more than ``start`` entries are due: each source may be half an entry ahead.
    time = max(Fraction(0), (start - Fraction(len(exact), 2)) / sum(exact))
    had = [max(0, math.ceil(weight * time - Fraction(1, 2))) for weight in exact]
    position = sum(had)
    while True:
        due = min(range(len(exact)), key=lambda source: (had[source] + Fraction(1, 2)) / exact[source])
        if position >= start:
            yield due, had[due]
        had[due] += 1
        position += 1


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of each optimiser step that one process reads, in micro-batches.

    A step's videos lie one after another in the global order. Micro-batch ``a`` of process ``rank`` is slice
    ``a * world + rank`` of them, so that all processes together see what a single one would have seen.
    """

    seed: int
    portions: tuple[Portion, ...]
    """Sources of the samples, one or several in fixed ratios."""
    batch_size: int
    """Number of clips in one optimiser step, over all processes and micro-batches."""
    clips_per_video: int = 1
    rank: int = 0
    world: int = 1
    accumulate: int = 1
    packing: Packing | None = None
    """Samples that share rows, each with others of its source; positions and the batch size then count rows."""

    def __post_init__(self) -> None:
        slices = self.world * self.accumulate * self.clips_per_video
        if self.batch_size < 1 or self.clips_per_video < 1 or self.batch_size % slices:
            raise UserError(
                f"batch_size {self.batch_size} does not divide into {self.world} processes x {self.accumulate} "
                f"accumulated micro-batches x {self.clips_per_video} clips per video: make it a multiple of {slices}"
            )
        if any(portion.balance and (portion.together > 1 or self.packing) for portion in self.portions):
            raise UserError("data.balance is for samples with rows of their own: leave it out")
        if any(portion.num_samples < 1 for portion in self.portions) or not self.portions:
            raise UserError("there is nothing to train on: the training split is empty")

    @property
    def num_samples(self) -> int:
        """Samples of all sources together."""
        return sum(portion.num_samples for portion in self.portions)

    @property
    def videos(self) -> int:
        """Videos of one optimiser step, over everything."""
        return self.batch_size // self.clips_per_video

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in which as many positions are read as one pass over every source has."""
        own = sum(portion.num_rows for portion in self.portions)
        return (own if self.packing is None else self.packing.num_rows) / self.videos

    @property
    def micro_videos(self) -> int:
        """Videos of one micro-batch of one process."""
        return self.videos // (self.world * self.accumulate)

    def micro_batches(self, start: int) -> Iterator[tuple[Draw, ...]]:
        """The draws of this process's micro-batches, from optimiser step ``start`` on, without end."""
        size, orders = self.micro_videos, self._orders
        step = start
        while True:
            for a in range(self.accumulate):
                first = step * self.videos + (a * self.world + self.rank) * size
                draws = []
                for position, (source, place) in zip(range(first, first + size), self._due(first)):
                    pick, *others = orders[source].at(place)
                    draws.append(Draw(position, *pick, tuple(others), source))
                yield tuple(draws)
            step += 1

    def means(self, step: int) -> tuple[float, float]:
        """Number of samples, and of learnt tokens, of a micro-batch: means over all those of a step, whose samples
        share rows."""
        assert self.packing is not None, "samples have rows of their own"
        due = islice(self._due(step * self.videos), self.videos)
        learnt = self.packing.learnt[[pick.index for source, place in due for pick in self._orders[source].at(place)]]
        batches = self.world * self.accumulate
        return float(np.count_nonzero(learnt)) / batches, float(learnt.sum()) / batches

    def _due(self, start: int) -> Iterator[tuple[int, int]]:
        """The source of every position from ``start`` on, and the place in that source's order."""
        return shared_out([portion.weight for portion in self.portions], start)

    @cached_property
    def _orders(self) -> Sequence[_Order | _BalancedOrder | _RowOrder]:
        """The endless order of each source."""
        seeds = [derive_seed(self.seed, "source", i) if i else self.seed for i in range(len(self.portions))]
        if self.packing is not None:
            return [_RowOrder(seed, rows) for seed, rows in zip(seeds, self.packing.rows, strict=True)]
        firsts = accumulate((portion.num_samples for portion in self.portions), initial=0)
        return [
            (_BalancedOrder if portion.balance else _Order)(seed, portion, first)
            for seed, portion, first in zip(seeds, self.portions, firsts)
        ]


class _Order:
    """The endless order of one source's samples, which begin at number ``first``."""

    def __init__(self, seed: int, portion: Portion, first: int):
        self._seed, self._portion, self._first = seed, portion, first
        self._epochs: dict[int, np.ndarray] = {}

    def at(self, place: int) -> list[Pick]:
        """The samples of the ``place``-th row."""
        together, n = self._portion.together, self._portion.num_samples
        picks = []
        for number in range(place * together, (place + 1) * together):
            epoch = number // n
            if epoch not in self._epochs:
                # Two, since a row may lie in both.
                self._epochs = {known: order for known, order in self._epochs.items() if known == epoch - 1}
                self._epochs[epoch] = permutation(self._seed, epoch, n)
            picks.append(Pick(epoch, self._first + int(self._epochs[epoch][number % n])))
        return picks


class _BalancedOrder:
    """The endless order of one source's samples in which rarer classes have a larger part than by their number.

    In an epoch, of as many positions as there are samples, each class has its share of them up to one, which goes to
    it by chance. Its samples are read in passes of their own, the last of which an epoch may cut short.
    """

    def __init__(self, seed: int, portion: Portion, first: int):
        assert portion.classes is not None, "told by Source.portions"
        self._seed, self._first, self._num = seed, first, portion.num_samples
        self._members = [np.flatnonzero(portion.classes == name) for name in np.unique(portion.classes)]
        parts = np.array([len(members) for members in self._members]) ** (1.0 - portion.balance)
        self._ends = np.cumsum(parts / parts.sum())
        self._ends[-1] = 1.0
        shares = np.diff(self._ends, prepend=0.0)
        most = [math.ceil((self._num * share + 1) / len(own)) for share, own in zip(shares, self._members)]
        self._passes = max(most)  # in an epoch, of any class
        self._epoch, self._order = -1, np.empty((0, 2), dtype=np.int64)

    def at(self, place: int) -> list[Pick]:
        """The sample of the ``place``-th row."""
        epoch, number = divmod(place, self._num)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(epoch)
        sample, turn = self._order[number].tolist()
        return [Pick(epoch * self._passes + turn, self._first + sample)]

    def _draw(self, epoch: int) -> np.ndarray:
        """Sample and pass of each position in an epoch, ``N 2``."""
        offset = np.random.default_rng(derive_seed(self._seed, "balance", epoch)).random()
        points = (np.arange(self._num) + offset) / self._num
        counts = np.bincount(np.searchsorted(self._ends, points, side="right"), minlength=len(self._members))
        found = []
        for i, (members, count) in enumerate(zip(self._members, counts.tolist())):
            passes = -(-count // len(members))
            orders = [
                permutation(derive_seed(self._seed, "class", i, turn), epoch, len(members)) for turn in range(passes)
            ]
            own = members[np.concatenate(orders)[:count]] if orders else members[:0]
            found.append(np.stack([own, np.arange(count) // len(members)], axis=1))
        return np.concatenate(found)[permutation(self._seed, epoch, self._num)]


class _RowOrder:
    """The endless order of the rows that samples of one source share."""

    def __init__(self, seed: int, rows: Sequence[tuple[int, ...]]):
        self._seed, self._rows = seed, rows
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def at(self, place: int) -> list[Pick]:
        """The samples of the ``place``-th row."""
        epoch, number = divmod(place, len(self._rows))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self._seed, epoch, len(self._rows))
        return [Pick(epoch, index) for index in self._rows[self._order[number]]]
