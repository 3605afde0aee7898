"""Configuration of the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from filmstrip.bounds import Count, CountOrZero, Rate, ShareBelowOne
from filmstrip.errors import UserError
from filmstrip.settings import EXTENDABLE, FREE
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.phase_values import PhaseValues

TrackerName = Literal["tensorboard", "wandb", "mlflow"]


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
    phase_clip_grad: PhaseValues = ()
    """Maximum gradient norms of phases that have another one, as pairs: ``actor 100 critic 100``."""
    ema: ShareBelowOne | None = None
    """Decay of the exponential moving average (EMA) of the weights, which evaluation and ``weights.safetensors`` then
    use."""
    compile: bool = field(default=False, metadata=FREE)
    """Whether to compile each block with ``torch.compile``."""
    checkpoint: bool = field(default=False, metadata=FREE)
    """Whether to recompute each block's activations in the backward pass (activation checkpointing)."""
    log_every: Count = field(default=10, metadata=FREE)
    """Steps between log entries."""
    tracker: tuple[TrackerName, ...] = field(default=("tensorboard",), metadata=FREE)
    """Trackers that recorded values also go to: tensorboard, wandb, mlflow (extras of those names), or none."""
    eval_every: CountOrZero | None = field(default=None, metadata=FREE)
    """Steps between evaluations; zero evaluates at the end only. By default what learns from labels is evaluated ten
    times, at least 50 steps apart, and all else at the end only."""
    best: str | None = None
    """Metric of the evaluations, such as top1, by which the best weights are kept in ``weights.safetensors`` and used
    from then on (those of the last step are in ``last.safetensors``); none keeps those of the last step."""
    best_is: Literal["auto", "highest", "lowest"] = "auto"
    """Whether the highest or the lowest value of ``best`` is the best one; ``auto`` goes by its name (lowest for
    losses, errors and distances)."""
    patience: Count | None = field(default=None, metadata=FREE)
    """Number of evaluations in a row without a better value of ``best`` after which training stops; none trains to
    the end."""
    save_every: Count = field(default=500, metadata=FREE)
    """Steps between saved states, from which a run can resume."""
    context: Count = field(default=1, metadata=FREE)
    """Number of neighbouring processes that share the tokens of every clip, and so read the same batches; the others
    share the clips of a batch. More than 1 needs a method whose attention can be shared."""
    context_striped: bool = field(default=False, metadata=FREE)
    """Whether a process of a context has every so many tokens of a row, in place of adjacent ones: causal attention
    is then shared out evenly, and less of rows of several documents is skipped."""
    shard: Literal["none", "fsdp"] = field(default="none", metadata=FREE)
    """Weights across processes: replicated (``none``, DDP) or sharded (``fsdp``, FSDP2)."""

    def __post_init__(self) -> None:
        if self.patience is not None and self.best is None:
            raise UserError("train.patience waits for a better value of a metric: name it with --train.best, as top1")
