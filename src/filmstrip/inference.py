"""Running a model for inference, without side effects on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from filmstrip.errors import UserError
from filmstrip.protocols import Encoder, Tokenizer


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Restore the training or evaluation mode of every submodule after the body."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without autograd; modes of all submodules are restored afterwards.

    Do not yield to a caller inside: inference mode would leak into the caller's code.
    """
    with modes_kept(module), torch.inference_mode():
        module.eval()
        yield


def encoder_of(objective: nn.Module) -> Encoder:
    """The encoder of an objective.

    Raises:
        UserError: it has none.
    """
    encoder = getattr(objective, "encoder", None)
    if not isinstance(encoder, Encoder):
        hint = " (a tokenizer's tokens: filmstrip encode --level ids)" if isinstance(objective, Tokenizer) else ""
        raise UserError(f"{type(objective).__name__} has no encoder, so it has no features{hint}")
    return encoder


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's weights; the CPU for one without weights."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
