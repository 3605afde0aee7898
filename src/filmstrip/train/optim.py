"""Optimisers and learning rates, from a run's ``Optim`` and an objective's phases and parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.optim import Optimizer

from filmstrip.errors import UserError
from filmstrip.protocols import Objective, Phase
from filmstrip.train.config import Optim


def optimiser(objective: Objective, phase: Phase, optim: Optim) -> Optimizer:
    """The optimiser of one phase, without frozen parameters.

    The peak learning rate of a layer is ``lr * layer_decay ** (max_depth - depth)``, within the phase.

    Raises:
        UserError: all parameters of the phase are frozen.
    """
    groups = objective.param_groups(phase)
    if not groups:
        raise UserError(
            f"{type(objective).__name__} has nothing to train in phase {phase.name!r}: all its parameters are frozen"
        )
    deepest = max(group.depth for group in groups)
    options = []
    for group in groups:
        peak = optim.lr * optim.layer_decay ** (deepest - group.depth)
        decay = optim.weight_decay if group.decay else 0.0
        named = list(zip(group.names, group.params))
        options.append({"params": named, "lr": peak, "peak_lr": peak, "weight_decay": decay})
    if optim.name == "sgd":
        return torch.optim.SGD(options, momentum=optim.betas[0], nesterov=optim.betas[0] > 0, fused=True)
    return torch.optim.AdamW(options, betas=optim.betas, fused=True)


def rate_factor(optim: Optim, step: int, total: int) -> float:
    """The learning rate of a step (counted from zero) as a share of its peak.

    Linear warm-up from ``start``, whose last step has the peak rate, then half a cosine that would reach ``final`` at
    step ``total`` (Loshchilov and Hutter 2017).
    """
    warmup = round(optim.warmup * total)
    if step < warmup:
        return optim.start + (1 - optim.start) * (step + 1) / warmup
    if optim.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(total - warmup, 1)
    return optim.final + (1 - optim.final) * (1 + math.cos(math.pi * progress)) / 2


def set_rates(optimisers: Iterable[Optimizer], factor: float) -> None:
    """Set every group's learning rate to this share of its peak."""
    for one in optimisers:
        for group in one.param_groups:
            group["lr"] = group["peak_lr"] * factor
