"""Changes to a network's blocks from outside, in one fixed order: recompute activations, then compile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint as recompute

from filmstrip.errors import UserError


def find_blocks(module: nn.Module) -> list[nn.Module]:
    """Every element of every ``nn.ModuleList`` named ``blocks``, outermost lists only."""
    found: dict[nn.Module, None] = {}
    for name, child in module.named_children():
        inside = child if name == "blocks" and isinstance(child, nn.ModuleList) else find_blocks(child)
        found.update(dict.fromkeys(inside))
    return list(found)


@contextmanager
def changed_blocks(module: nn.Module, *, checkpoint: bool, compile: bool) -> Iterator[list[nn.Module]]:
    """The blocks of ``module``, changed inside the context and restored afterwards; parameter names stay the same.

    Raises:
        UserError: a change is requested and there are no blocks.
    """
    blocks = find_blocks(module)
    if (checkpoint or compile) and not blocks:
        requested = " and ".join(
            f"train.{flag}" for flag, on in (("checkpoint", checkpoint), ("compile", compile)) if on
        )
        raise UserError(
            f"{requested} changes the blocks of a network (an nn.ModuleList named 'blocks'), and "
            f"{type(module).__name__} has none: disable it"
        )
    try:
        for block in blocks:
            if checkpoint:
                block.forward = MethodType(_recomputed_forward, block)
            if compile:
                block.compile()
        yield blocks
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
            block._compiled_call_impl = None


def _recomputed_forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    # One function for all blocks, so that they can share one compiled graph.
    return recompute(type(block).forward, block, *args, use_reentrant=False, **kwargs)
