"""Search for the minimum length whose error meets a target, when each evaluation is expensive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Errors = Callable[[Tensor], Tensor]
"""``errors(lengths)``: the error of each of ``B`` samples at its length, ``B`` int64 to ``B`` floats."""
Method = Literal["full", "binned", "binary"]


@dataclass
class Search:
    """Search for the minimum length in ``low .. high`` whose error is at most a target.

    ``full`` tries every length, longest first. ``binned`` tries ``bins`` lengths, evenly spaced, the last ``high``.
    ``binary`` bisects the range, which is correct if errors fall as lengths grow: ``ceil(log2 n)``
    evaluations of ``n`` lengths. A sample whose target no length meets gets ``high``, which binary search does not
    try. Samples of a batch are searched in parallel. ``evaluations`` counts the calls of ``errors`` so far.

    Yan et al. 2025 (ElasticTok), table 4.4.
    """

    low: int
    high: int
    method: Method = "binary"
    bins: int = 100
    evaluations: int = 0

    def __call__(self, errors: Errors, target: float, batch: int, device: torch.device | None = None) -> Tensor:
        """The lengths of ``batch`` samples, ``B`` int64.

        Raises:
            ValueError: the range of lengths is empty.
        """
        if not 1 <= self.low <= self.high or self.bins < 1:
            raise ValueError(f"cannot choose a length from {self.low} to {self.high} in {self.bins} bins")
        highest = torch.full((batch,), self.high, dtype=torch.int64, device=device)
        if self.method == "binary":
            return self._binary(errors, target, highest)
        best = highest.clone()
        for length in reversed(self.candidates()):
            lengths = torch.full_like(highest, length)
            best = torch.where(self._met(errors, lengths, target), lengths, best)
        return best

    def candidates(self) -> list[int]:
        """The lengths that ``full`` and ``binned`` try, ascending."""
        if self.method == "full" or self.bins > self.high - self.low:
            return list(range(self.low, self.high + 1))
        spaced = torch.linspace(self.low, self.high, self.bins + 1, dtype=torch.float64)[1:]
        return sorted(set(spaced.round().long().tolist()))

    def _binary(self, errors: Errors, target: float, high: Tensor) -> Tensor:
        low = torch.full_like(high, self.low)
        for _ in range((self.high - self.low).bit_length()):
            middle = (low + high) // 2
            # Samples that are down to one length are evaluated again along with the others, and stay as they are.
            met = self._met(errors, middle, target) | (low == high)
            low, high = torch.where(met, low, middle + 1), torch.where(met, middle, high)
        return high

    def _met(self, errors: Errors, lengths: Tensor, target: float) -> Tensor:
        self.evaluations += 1
        return errors(lengths) <= target
