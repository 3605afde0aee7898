"""Naming the steps of a procedure that are not seen, from the clips that are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.procedures import ProcedureInfo
from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Loss, Objective

NO_STEP = -1
"""The id of a step that is not known."""


class StepPrediction(Objective):
    """Cross-entropy of the steps at the places that are asked for.

    Subclasses say what they think of each place (:meth:`logits`); a :class:`~filmstrip.protocols.Forecaster`.
    """

    requires = ("features", "step", "seen", "target")
    draws = False
    """Whether :meth:`logits` depends on its seeds."""

    def logits(self, batch: Batch, seeds: Tensor) -> Tensor:
        """``B S steps`` from ``features``, ``seen`` and ``target``; ``seeds`` (``B``) drive what is drawn, if any."""
        raise TypeError(f"{type(self).__name__} does not define logits(batch, seeds)")

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per step; logs the share of steps that are right."""
        logits = self.logits(batch, batch["seed"]).flatten(0, 1)
        # Of a fixed shape, whatever is asked for: choosing the places would wait for the device.
        step = batch["step"].masked_fill(~batch["target"], NO_STEP).flatten()
        return Loss(step_loss(logits, step), {"top1": top1(logits, step)})

    def forecast(self, batch: Batch, *, samples: int = 1, seed: int = 0) -> Tensor:
        """Logits ``B K S steps``: as :class:`~filmstrip.protocols.Forecaster` says.

        Methods that draw nothing say the same ``K`` times.
        """
        batch = {key: batch[key] for key in ("features", "seen", "target")}
        rows = torch.arange(len(batch["features"]), device=batch["features"].device) + seed
        # Seeds of two draws lie far apart, so that no row's second draw is another row's first.
        draws = [self.logits(batch, rows + (k << 32)) for k in range(samples if self.draws else 1)]
        return torch.stack(draws, dim=1).expand(-1, samples, -1, -1)


def asked(batch: Batch, values: Tensor) -> Tensor:
    """Those of ``B S ...`` values that lie at places whose step is asked for, ``n ...``."""
    return values[batch["target"]]


def step_loss(logits: Tensor, step: Tensor) -> Tensor:
    """Mean cross-entropy of ``n steps`` logits where ``step`` (``n``) is known; zero where none is."""
    known = (step != NO_STEP).sum().clamp(min=1)
    return F.cross_entropy(logits.float(), step, ignore_index=NO_STEP, reduction="sum") / known


def top1(logits: Tensor, step: Tensor) -> Tensor:
    """The share of known steps (``n``) that the ``n steps`` logits put first, detached."""
    known = (step != NO_STEP).sum().clamp(min=1)
    return ((logits.detach().argmax(dim=-1) == step).sum() / known).float()


@dataclass(frozen=True, kw_only=True)
class StepPredictionConfig(ObjectiveConfig):
    """What the data says of its procedures."""

    num_steps: CountOrZero = 0
    num_tasks: CountOrZero = 0
    feature_width: CountOrZero = 0
    """Size of a feature, D."""
    num_tokens: Count = 1
    """Features of a clip, N."""

    def bind(self, info: DataInfo) -> Self:
        """Take the sizes from the data, where they are procedures."""
        if not isinstance(info, ProcedureInfo):
            return self
        t, h, w = info.grid
        sizes = {"num_steps": len(info.steps), "num_tasks": len(info.tasks)}
        return replace(self, **sizes, feature_width=info.width, num_tokens=t * h * w)

    def check(self) -> None:
        """See that there is something to predict from, and something to predict.

        Raises:
            UserError: the data has no steps, or the sizes were not given.
        """
        if not (self.num_steps and self.feature_width):
            raise UserError(
                "predicting steps needs procedures: features with steps (--data FOLDER), or objective.num_steps and "
                "objective.feature_width"
            )
