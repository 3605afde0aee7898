"""Arrays of a flax checkpoint as the weights of our layers.

Its tree is given flat, as ``flax.traverse_util.flatten_dict(params, sep="/")`` has it, with tensors for arrays.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.weights.keymap import Weights, check_names


class Tree:
    """The arrays of a checkpoint; it knows which have been read. ``what`` begins the sentence of an error."""

    def __init__(self, arrays: Mapping[str, Tensor], what: str) -> None:
        self.arrays, self.what = arrays, what
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.arrays:
            raise UserError(f"{self.what} has no {name}: is it of another size, or of another network?")
        self._read.add(name)
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def check_all_read(self) -> None:
        """See that nothing is left over.

        Raises:
            UserError: an array has not been read.
        """
        check_names(self.what, sorted(self.arrays), self._read)

    def dense(self, name: str) -> Weights:
        """A linear layer, with its bias if it has one."""
        return {"weight": self[f"{name}/kernel"].T} | self._bias(name)

    def conv(self, name: str) -> Weights:
        """A convolution of frames, with its bias if it has one."""
        return {"weight": self[f"{name}/kernel"].permute(3, 2, 0, 1)} | self._bias(name)

    def transposed_conv(self, name: str) -> Weights:
        """A transposed convolution whose stride is its kernel: flax's kernel is the other way round."""
        return {"weight": self[f"{name}/kernel"].permute(2, 3, 0, 1).flip(2, 3)}

    def norm(self, name: str) -> Weights:
        """A norm's gain and bias."""
        return {"weight": self[f"{name}/scale"], "bias": self[f"{name}/bias"]}

    def attention(self, name: str) -> Weights:
        """Multi-head attention; queries, keys and values in one."""
        parts = [f"{name}/{part}" for part in ("query", "key", "value")]
        return {
            "qkv.weight": torch.cat([self[f"{part}/kernel"].flatten(1).T for part in parts]),
            "qkv.bias": torch.cat([self[f"{part}/bias"].flatten() for part in parts]),
            "out.weight": self[f"{name}/out/kernel"].flatten(0, 1).T,
        }

    def _bias(self, name: str) -> Weights:
        return {"bias": self[f"{name}/bias"]} if f"{name}/bias" in self else {}


def under(prefix: str, weights: Weights) -> Weights:
    """The weights of a part, by their names in the whole."""
    return {f"{prefix}.{name}": value.contiguous() for name, value in weights.items()}
