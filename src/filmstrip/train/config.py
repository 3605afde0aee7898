"""Configuration of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from filmstrip.bounds import Count, Rate, ShareBelowOne
from filmstrip.settings import EXTENDABLE, FREE
from filmstrip.train.lengths import Epochs, Steps


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Length of training, precision, logging and saving."""

    # On the command line its field stands alone, as --train.steps or --train.epochs.
    length: Annotated[Steps | Epochs, tyro.conf.arg(name="")] = field(metadata=EXTENDABLE)
    """Length of training: ``Steps(500)`` or ``Epochs(20)``."""
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
    context: Count = field(default=1, metadata=FREE)
    """Number of neighbouring processes that share the tokens of every clip, and so read the same batches; the others
    share the clips of a batch. More than 1 needs a method whose attention can be shared."""
    shard: Literal["none", "fsdp"] = field(default="none", metadata=FREE)
    """Weights across processes: replicated (``none``, DDP) or sharded (``fsdp``, FSDP2)."""
