"""Running a model for inference, without side effects on it.

Methods of protocols neither move tensors nor change modes: whoever calls them does both, with :func:`on_device` and
:func:`inference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.protocols import Batch, EncoderModule, Tokenizer, find_encoder

Item = TypeVar("Item")


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


def stepwise(module: nn.Module, items: Iterator[Item]) -> Iterator[Item]:
    """The items of an iterator that runs the module, such as a stream of frames: each is computed in inference mode,
    and the caller's own code is not."""
    while True:
        with inference(module):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device; from pinned memory without waiting for the copies."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def encoder_of(objective: nn.Module) -> EncoderModule:
    """The encoder of an objective.

    Raises:
        UserError: it has none.
    """
    encoder = find_encoder(objective)
    if encoder is None:
        hint = " (a tokenizer's tokens: filmstrip encode --level ids)" if isinstance(objective, Tokenizer) else ""
        raise UserError(f"{type(objective).__name__} has no encoder, so it has no features{hint}")
    return encoder


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's weights; the CPU for one without weights."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
