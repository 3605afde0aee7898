"""Blocks whose tokens processes share: each applies them to its own tokens, and attention goes round a ring.

It is done from outside, so that networks know nothing of it: what enters a block is cut to this process's tokens, and
what leaves it is put together again. Everything between blocks sees all tokens; what a block keeps for its backward
pass, which is most of a network's memory, is that of a share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.nn.ring_attention import all_tokens, own_of_padded
from filmstrip.protocols import RingOfProcesses

Options = Callable[[dict[str, Any], int], dict[str, Any]]
"""The keyword arguments of a block for this process's tokens, from those for all of a row's so many."""


def share_tokens(block: nn.Module, ring: RingOfProcesses, options: Options = lambda given, length: given) -> None:
    """Share the tokens ``B N D`` that a block is given first, and returns, among processes of a ring, in training.

    The block's attention has to go round the ring by itself. Rows whose length is no multiple of the number of
    processes are padded at their end, and what was added is cut off again.
    """
    shared = _Shared(ring, options)
    block.register_forward_pre_hook(shared.split, with_kwargs=True)
    block.register_forward_hook(shared.join)


class _Shared:
    """What is done before and after one block."""

    def __init__(self, ring: RingOfProcesses, options: Options) -> None:
        self.ring, self.options = ring, options
        self.length: int | None = None
        """Number of tokens of the rows that are in the block, while processes share them."""

    def split(
        self, block: nn.Module, given: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self.length = given[0].shape[1] if block.training else None
        if self.length is None:
            return None
        if self.length < self.ring.size:
            raise UserError(
                f"{self.ring.size} processes cannot share rows of {self.length} tokens, as this "
                f"{type(block).__name__} is given: lower train.context"
            )
        return (own_of_padded(given[0], self.ring), *given[1:]), self.options(options, self.length)

    def join(self, block: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor | None:
        return None if self.length is None else all_tokens(out, self.ring)[:, : self.length]
