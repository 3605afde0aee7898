"""How a run is optimised: optimiser, schedule, loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from filmstrip.bounds import Count, PositiveShare, Rate, Share, ShareBelowOne, Weight
from filmstrip.settings import EXTENDABLE, FREE


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimiser and learning-rate schedule, the same for every phase."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: Rate = 1e-3
    """Peak learning rate, for the batch size that the run names (nothing rescales it)."""
    weight_decay: Weight = 0.05
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    """AdamW's; SGD uses the first as its momentum."""
    layer_decay: PositiveShare = 1.0
    """Each layer further from the output learns this much slower."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Share = 0.05
    """Share of all steps in which the learning rate rises linearly from ``start``."""
    start: Share = 0.0
    """Learning rate that the warm-up rises from, as a share of the peak."""
    final: Share = 0.0
    """Learning rate at the end of the cosine, as a share of the peak."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How long a run lasts and what happens along the way."""

    steps: Count | None = field(default=None, metadata=EXTENDABLE)
    """Optimiser steps; give this or ``epochs``. A run that was begun goes on for more, and its learning rate is then
    that of a run planned for so many."""
    epochs: Rate | None = field(default=None, metadata=EXTENDABLE)
    """Passes over the training videos."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: Count = 1
    """Backward passes in one optimiser step."""
    clip_grad: Rate | None = 1.0
    """Largest gradient norm; none for no clipping."""
    ema: ShareBelowOne | None = None
    """Decay of the moving average of the weights; evaluation and ``weights.safetensors`` then use the average."""
    compile: bool = field(default=False, metadata=FREE)
    """Compile each block with ``torch.compile``."""
    checkpoint: bool = field(default=False, metadata=FREE)
    """Recompute each block's activations in the backward pass."""
    log_every: Count = field(default=10, metadata=FREE)
    eval_every: Count | None = field(default=None, metadata=FREE)
    save_every: Count = field(default=500, metadata=FREE)
    """Steps between two states that a run can resume from."""
    shard: Literal["none", "fsdp"] = field(default="none", metadata=FREE)
    """Across processes: replicate the weights (DDP), or shard them (FSDP2)."""
