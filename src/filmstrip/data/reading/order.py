"""The endless order of the training data, as pure functions of the run's seed.

Global position ``p`` is sample ``permutation(p // n)[p % n]``: no partial last batch, sets smaller than a batch work,
and a step number alone says where to resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from filmstrip.errors import UserError


class Draw(NamedTuple):
    """An entry of the endless order: the sample at ``position``, and its ``epoch``."""

    position: int
    epoch: int
    index: int  # type: ignore[assignment]  # in place of a tuple's method of that name


def derive_seed(*parts: int | str) -> int:
    """A seed in 0..2**63 that depends on all parts, and is the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of ``n`` samples in an epoch, ``n`` int64."""
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(n)


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of each optimiser step that one process reads, in micro-batches.

    A step's videos lie one after another in the global order. Micro-batch ``a`` of process ``rank`` is slice
    ``a * world + rank`` of them, so that all processes together see what a single one would have seen.
    """

    seed: int
    num_samples: int
    batch_size: int
    """Number of clips in one optimiser step, over all processes and micro-batches."""
    clips_per_video: int = 1
    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        slices = self.world * self.accumulate * self.clips_per_video
        if self.batch_size < 1 or self.clips_per_video < 1 or self.batch_size % slices:
            raise UserError(
                f"batch_size {self.batch_size} does not divide into {self.world} processes x {self.accumulate} "
                f"accumulated micro-batches x {self.clips_per_video} clips per video: make it a multiple of {slices}"
            )
        if self.num_samples < 1:
            raise UserError("there is nothing to train on: the training split is empty")

    @property
    def videos(self) -> int:
        """Videos of one optimiser step, over everything."""
        return self.batch_size // self.clips_per_video

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one pass over the videos."""
        return self.num_samples / self.videos

    @property
    def micro_videos(self) -> int:
        """Videos of one micro-batch of one process."""
        return self.videos // (self.world * self.accumulate)

    def micro_batches(self, start: int) -> Iterator[tuple[Draw, ...]]:
        """The draws of this process's micro-batches, from optimiser step ``start`` on, without end."""
        size = self.micro_videos
        epoch, order = -1, np.empty(0, np.int64)
        step = start
        while True:
            for a in range(self.accumulate):
                first = step * self.videos + (a * self.world + self.rank) * size
                draws = []
                for position in range(first, first + size):
                    if position // self.num_samples != epoch:
                        epoch = position // self.num_samples
                        order = permutation(self.seed, epoch, self.num_samples)
                    draws.append(Draw(position, epoch, int(order[position % self.num_samples])))
                yield tuple(draws)
            step += 1
