"""Samples that share rows of a fixed length: which of them lie in one row, found out before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError

OPEN = 256
"""Number of rows that are filled at a time: more fill better, and take longer to choose from."""
SHOWN = 5
"""Number of samples that a message names."""


@dataclass(frozen=True, eq=False)
class Packing:
    """The rows that training samples share.

    Which samples share a row is the same in every pass over the data; rows come in another order in each. So a pass
    has every sample once, and the number of a step says where to resume.
    """

    room: int
    """Number of tokens of a row."""
    lengths: np.ndarray
    """Number of tokens that each sample takes, ``N`` int64."""
    learnt: np.ndarray
    """Number of tokens of each sample that are learnt, ``N`` int64."""
    rows: tuple[tuple[tuple[int, ...], ...], ...]
    """Samples of each row of each source, by their numbers; none has samples of two sources."""

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        lengths: Sequence[int],
        learnt: Sequence[int],
        room: int,
        seed: int,
        *,
        sources: Sequence[int] | None = None,
    ) -> Packing:
        """The rows of samples, which are packed in a random order, those of each of several ``sources`` apart.

        Raises:
            UserError: a sample is longer than a row; names the first of those.
        """
        long = [(name, length) for name, length in zip(names, lengths) if length > room]
        if long:
            shown = "\n".join(f"  {name} takes {length} tokens" for name, length in long[:SHOWN])
            more = f"\n  and {len(long) - SHOWN} more" if len(long) > SHOWN else ""
            raise UserError(
                f"{len(long)} of {len(names)} samples are longer than a row of {room} tokens:\n{shown}{more}\n"
                f"Lengthen the rows (--data.reads.pack {max(lengths)}), or cut texts (--data.reads.max-length)"
            )
        origins, rows = np.array(sources or [0] * len(lengths)), []
        for source in range(int(origins.max()) + 1):
            own = np.flatnonzero(origins == source)
            parts = (seed, "packing", source) if source else (seed, "packing")
            order = own[np.random.default_rng(derive_seed(*parts)).permutation(len(own))]
            found = first_fit([lengths[i] for i in order], room)
            rows.append(tuple(tuple(int(order[place]) for place in row) for row in found))
        return cls(room, np.array(lengths), np.array(learnt), tuple(rows))

    def documents(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The number, from 1, of the sample at each place of rows that hold given ones: ``R N`` int64, 0 for none.

        Samples are numbered through all rows.
        """
        found, number = torch.zeros((len(rows), self.room), dtype=torch.int64), 0
        for row, samples in zip(found, rows):
            end = 0
            for sample in samples:
                number += 1
                start, end = end, end + int(self.lengths[sample])
                row[start:end] = number
        return found

    @property
    def fill(self) -> float:
        """Share of all rows' tokens that samples take."""
        return float(self.lengths.sum() / (self.room * self.num_rows))

    @property
    def num_rows(self) -> int:
        """Number of rows of all sources together."""
        return sum(map(len, self.rows))


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which of items of some lengths, none above ``room``, share a row: each enters the first one with room for it.

    At most ``OPEN`` rows are candidates at a time; a new one beyond that takes the place of the fullest.
    """
    rows: list[list[int]] = []
    free = np.zeros(OPEN, dtype=np.int64)
    number = np.full(OPEN, -1)
    for item, length in enumerate(lengths):
        fits = np.flatnonzero(free >= length)
        # A place among the open rows that a new one took over is not the oldest any more.
        place = fits[number[fits].argmin()] if len(fits) else free.argmin()
        if not len(fits):
            number[place], free[place] = len(rows), room
            rows.append([])
        rows[number[place]].append(item)
        free[place] -= length
    return rows
