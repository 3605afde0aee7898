"""The training loop's own step of an objective, on the CPU, for comparisons: every phase with its update."""

from __future__ import annotations

from collections.abc import Callable

from accelerate import Accelerator

from filmstrip.protocols import Batch, Objective
from filmstrip.train.async_metrics import AsyncMetrics
from filmstrip.train.optim import Optim
from filmstrip.train.step import OptimiserStep


def loop_step(objective: Objective, optim: Optim, clip_grad: float | None) -> Callable[[Batch], None]:
    """A function that does with a batch what one step of training does, its values copied as if they were logged."""
    accelerator = Accelerator(cpu=True)
    optimisers = {phase: optim.build(objective, phase) for phase in objective.phases()}
    one = OptimiserStep(
        objective,
        objective,
        optimisers,
        accelerator=accelerator,
        readings=AsyncMetrics(accelerator.device, ()),
        augment=lambda batch: batch,
        clip_grad={phase.name: clip_grad for phase in optimisers},
    )

    def step(batch: Batch) -> None:
        one(1, iter([dict(batch)]))
        objective.after_step(1)

    return step
