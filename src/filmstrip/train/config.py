"""Configuration of training: optimiser, schedule, loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from filmstrip.bounds import Count, PositiveShare, Rate, Share, ShareBelowOne, Weight
from filmstrip.settings import EXTENDABLE, FREE


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimiser and learning-rate schedule, the same for every phase."""

    name: Literal["adamw", "sgd"] = "adamw"
    """Optimiser."""
    lr: Rate = 1e-3
    """Peak learning rate at the configured batch size (never rescaled)."""
    weight_decay: Weight = 0.05
    """Weight decay coefficient."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    """Betas of AdamW; SGD uses the first as its momentum."""
    layer_decay: PositiveShare = 1.0
    """Factor of the learning rate per layer of distance from the output."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate schedule after the warm-up."""
    warmup: Share = 0.05
    """Share of all steps in which the learning rate rises linearly from ``start``."""
    start: Share = 0.0
    """Initial learning rate of the warm-up, as a share of the peak."""
    final: Share = 0.0
    """Final learning rate of the cosine, as a share of the peak."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Length of training, precision, logging and saving."""

    steps: Count | None = field(default=None, metadata=EXTENDABLE)
    """Number of optimiser steps; set this or ``epochs``. An existing run can be extended, with the learning rates of
    a run of the new length."""
    epochs: Rate | None = field(default=None, metadata=EXTENDABLE)
    """Number of passes over the training videos."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Mixed precision of forward and backward passes."""
    accumulate: Count = 1
    """Number of accumulated micro-batches per optimiser step."""
    clip_grad: Rate | None = 1.0
    """Maximum gradient norm; none disables clipping."""
    ema: ShareBelowOne | None = None
    """Decay of the exponential moving average (EMA) of the weights, which evaluation and ``weights.safetensors`` then
    use."""
    compile: bool = field(default=False, metadata=FREE)
    """Whether to compile each block with ``torch.compile``."""
    checkpoint: bool = field(default=False, metadata=FREE)
    """Whether to recompute each block's activations in the backward pass (activation checkpointing)."""
    log_every: Count = field(default=10, metadata=FREE)
    """Steps between log entries."""
    eval_every: Count | None = field(default=None, metadata=FREE)
    """Steps between evaluations; none evaluates at the end only."""
    save_every: Count = field(default=500, metadata=FREE)
    """Steps between saved states, from which a run can resume."""
    shard: Literal["none", "fsdp"] = field(default="none", metadata=FREE)
    """Weights across processes: replicated (``none``, DDP) or sharded (``fsdp``, FSDP2)."""
