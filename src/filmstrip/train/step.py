"""One optimiser step: every phase in turn, each over all micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from filmstrip.distributed.parallel import gradients_stay_local
from filmstrip.distributed.tensors import whole
from filmstrip.inference import on_device
from filmstrip.protocols import Batch, Objective, Phase
from filmstrip.train.async_metrics import AsyncMetrics

if TYPE_CHECKING:
    from accelerate import Accelerator


class OptimiserStep:
    """Performs optimiser steps. Values of a single phase are logged by name, those of several as ``phase/name``."""

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        optimisers: Mapping[Phase, Optimizer],
        *,
        accelerator: Accelerator,
        readings: AsyncMetrics,
        augment: Callable[[Batch], Batch],
        clip_grad: Mapping[str, float | None],
    ) -> None:
        self._objective = objective
        self._model = model
        self._optimisers = optimisers
        self._accelerator = accelerator
        self._readings = readings
        self._augment = augment
        self._clip_grad = clip_grad
        self._accumulate = accelerator.gradient_accumulation_steps

    def __call__(self, step: int, stream: Iterator[Batch]) -> int:
        """Perform step ``step``, counted from 1; returns the number of clips this process read for it."""
        micro: Iterable[Batch] = (self._on_device(next(stream)) for _ in range(self._accumulate))
        if len(self._optimisers) > 1:
            micro = list(micro)  # every phase iterates over them; a single phase streams them
        for phase, optimiser in self._optimisers.items():
            with self._trained_alone(optimiser):
                clips, names = self._collect_gradients(step, phase, micro)
            norm = self._clip(optimiser, self._clip_grad[phase.name])
            self._readings.add(step, {self._called(phase, "grad_norm"): norm}, names)
            self._readings.check()
            self._update(optimiser)
            self._objective.zero_grad(set_to_none=True)
        return clips

    def _collect_gradients(self, step: int, phase: Phase, micro: Iterable[Batch]) -> tuple[int, list[str]]:
        """Accumulate the gradient of the mean loss; returns the number and the names of the clips."""
        clips, names = 0, []
        for i, batch in enumerate(micro, 1):
            with gradients_stay_local(self._model, i < self._accumulate):
                with self._accelerator.autocast():
                    loss = self._model(batch, phase=phase.name)
                terms = {"loss": loss.total, **{k: v for k, v in loss.metrics.items() if k != "loss"}}
                named = batch.get("name", ())
                self._readings.add(step, {self._called(phase, k): v for k, v in terms.items()}, named)
                self._accelerator.backward(loss.total)
            clips += _batch_size(batch)
            names += named
        return clips, names

    def _clip(self, optimiser: Optimizer, largest: float | None) -> Tensor:
        """Clip gradients to the ``largest`` norm, if there is one; returns the norm before clipping."""
        self._accelerator.unscale_gradients(optimiser)
        params = [p for group in optimiser.param_groups for p in group["params"]]
        norm = whole(nn.utils.get_total_norm([p.grad for p in params if p.grad is not None]))
        if largest is not None:
            nn.utils.clip_grads_with_norm_(params, largest, norm)
        return norm

    def _update(self, optimiser: Optimizer) -> None:
        if (scaler := self._accelerator.scaler) is None:
            optimiser.step()
        else:
            scaler.step(optimiser)
            scaler.update()

    @contextmanager
    def _trained_alone(self, optimiser: Optimizer) -> Iterator[None]:
        """Inside the context, only the parameters of ``optimiser`` require gradients: the others' would be unused."""
        own = {id(p) for group in optimiser.param_groups for p in group["params"]}
        others = [p for p in self._objective.parameters() if p.requires_grad and id(p) not in own]
        for param in others:
            param.requires_grad_(False)
        try:
            yield
        finally:
            for param in others:
                param.requires_grad_(True)

    def _on_device(self, batch: Batch) -> Batch:
        """The batch on the device, augmented. Seeds are moved last: augmentation draws from them on the host, without
        sync."""
        device = self._accelerator.device
        moved = on_device({k: v for k, v in batch.items() if k != "seed"}, device)
        return on_device(self._augment(moved | {k: v for k, v in batch.items() if k == "seed"}), device)

    def _called(self, phase: Phase, name: str) -> str:
        return name if len(self._optimisers) == 1 else f"{phase.name}/{name}"


def _batch_size(batch: Batch) -> int:
    return next(len(value) for value in batch.values() if torch.is_tensor(value))
