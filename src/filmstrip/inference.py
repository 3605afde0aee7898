"""Running a model to look at it, not to change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from filmstrip.errors import UserError
from filmstrip.protocols import Encoder, Tokenizer


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Whatever mode the body sets, afterwards every submodule is back in its own (frozen parts stay frozen)."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without autograd; afterwards every submodule is back in the mode that it was in.

    Never yield to a caller inside: inference mode would leak into the caller's own code.
    """
    with modes_kept(module), torch.inference_mode():
        module.eval()
        yield


def encoder_of(objective: nn.Module) -> Encoder:
    """The encoder that an objective holds.

    Raises:
        UserError: it holds none.
    """
    encoder = getattr(objective, "encoder", None)
    if not isinstance(encoder, Encoder):
        hint = " (a tokenizer's tokens: filmstrip encode --level ids)" if isinstance(objective, Tokenizer) else ""
        raise UserError(f"{type(objective).__name__} has no encoder, so it has no features to offer{hint}")
    return encoder


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are; the CPU for one that has none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
