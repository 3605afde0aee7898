"""Asynchronous copies of losses, metrics and gradient norms from device to log, with a check for NaN."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from filmstrip.distributed import process
from filmstrip.distributed.reduce import sum_over_processes
from filmstrip.errors import Diverged

SHOWN = 8
"""Maximum number of clips named in an error message."""


class _Reading(NamedTuple):
    step: int
    clips: tuple[str, ...]
    terms: tuple[str, ...]
    values: Tensor
    """One value per term, on the host."""
    ready: torch.cuda.Event | None
    """Event of the finished copy to the host; none if there is nothing to wait for."""


class AsyncMetrics:
    """Values of steps, copied to the host asynchronously: no step waits for its own loss.

    On a CPU values are available at once; on a GPU a non-finite value is detected a step or two later, and always
    before anything is logged, evaluated or saved. Only values named in ``must_be_finite`` are checked (a PSNR may be
    infinite).
    """

    def __init__(
        self, device: torch.device, must_be_finite: Collection[str], group: dist.ProcessGroup | None = None
    ) -> None:
        """``group``: the processes that share the batches of a step; by default all."""
        self._device = device
        self._group = group
        self._must_be_finite = frozenset(must_be_finite)
        self._on_their_way: deque[_Reading] = deque()
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, step: int, terms: Mapping[str, Tensor], clips: Sequence[str]) -> None:
        """Add the scalars of a step, and the names of its clips."""
        values = torch.stack([value.detach().to(self._device, torch.float32).reshape(()) for value in terms.values()])
        ready = None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            values, ready = host, torch.cuda.Event()
            ready.record()
        self._on_their_way.append(_Reading(step, tuple(clips), tuple(terms), values, ready))

    def check(self, wait: bool = False) -> None:
        """Check the values that have arrived; with ``wait``, all of them.

        Raises:
            Diverged: a checked value is not finite; the message names the step, the terms and the clips.
        """
        while self._on_their_way:
            ready = self._on_their_way[0].ready
            if ready is not None and wait:
                ready.synchronize()
            if ready is not None and not ready.query():
                return
            self._take(self._on_their_way.popleft())

    def means(self) -> dict[str, float]:
        """The mean of every term since the last call, over steps and processes.

        Every process must call it, with the same terms. Terms without a finite value are omitted.
        """
        self.check(wait=True)
        terms = sorted(self._counts)
        table = [[self._sums[t] for t in terms], [float(self._counts[t]) for t in terms]]
        device = self._device if process.is_several() else None
        mine = torch.tensor(table, dtype=torch.float64, device=device)
        sums, counts = sum_over_processes(mine, self._group).tolist()
        self._sums.clear()
        self._counts.clear()
        return {term: total / count for term, total, count in zip(terms, sums, counts) if count}

    def _take(self, reading: _Reading) -> None:
        values = dict(zip(reading.terms, reading.values.tolist()))
        bad = [term for term, value in values.items() if not math.isfinite(value)]
        if self._must_be_finite.intersection(bad):
            raise Diverged(_complaint(reading, values, bad))
        for term, value in values.items():
            finite = math.isfinite(value)
            self._sums[term] = self._sums.get(term, 0.0) + (value if finite else 0.0)
            self._counts[term] = self._counts.get(term, 0) + finite


def _complaint(reading: _Reading, values: Mapping[str, float], bad: Sequence[str]) -> str:
    more = f" and {len(reading.clips) - SHOWN} more" if len(reading.clips) > SHOWN else ""
    seen = (", ".join(reading.clips[:SHOWN]) + more) if reading.clips else "clips without names"
    where = f" on process {process.rank()}" if process.is_several() else ""
    return (
        f"step {reading.step}{where}: {', '.join(bad)} is not finite "
        f"({', '.join(f'{term} {value:.4g}' for term, value in values.items())}); the batch was {seen}. "
        "The last saved state is sound. Look at these clips, lower optim.lr, or clip gradients (train.clip_grad)"
    )
