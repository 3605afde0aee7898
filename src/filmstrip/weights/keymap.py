"""Renaming the weights of another library's checkpoint to ours, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class KeyMap:
    """Pairs of names, theirs and ours, where ``{i}`` stands for the number of a layer."""

    pairs: tuple[tuple[str, str], ...]

    def ours(self, theirs: Mapping[str, Tensor]) -> Weights:
        """Rename what the map knows; the rest is left out."""
        return self._rename(theirs, {a: b for a, b in self.pairs})

    def theirs(self, ours: Mapping[str, Tensor]) -> Weights:
        """The inverse of :meth:`ours`."""
        return self._rename(ours, {b: a for a, b in self.pairs})

    @staticmethod
    def _rename(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> Weights:
        renamed = {}
        for name, tensor in weights.items():
            number = re.search(r"\.(\d+)\.", name)
            layer = number[1] if number else ""
            pattern = name if not number else f"{name[: number.start()]}.{{i}}.{name[number.end() :]}"
            if pattern in names:
                renamed[names[pattern].replace("{i}", layer)] = tensor
        return renamed
