"""Classification of sequences by a recurrent model's states, at the last step or at every one."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Batch, Encoder, Loss


@dataclass(frozen=True, kw_only=True)
class StepwiseConfig(ClassificationConfig):
    """The part of the configuration that classifiers of sequences share."""

    readout: Literal["last", "every"] = "last"
    """Steps whose states are classified: the last one, or every one."""


class StepwiseClassification(Classification):
    """A label for each step of a clip. Subclasses provide the head's input at each step (:meth:`states`).

    ``last``: many to one, the last step classifies the clip. ``every``: many to many, each step learns the clip's
    label, and the clip's probabilities are the mean of theirs.
    """

    takes_labels = ("class",)

    def __init__(self, encoder: Encoder, config: StepwiseConfig) -> None:
        super().__init__(encoder, config)
        self.readout = config.readout

    @abstractmethod
    def states(self, video: Tensor) -> Tensor:
        """The state after each step, ``B T D``."""

    def step_logits(self, video: Tensor) -> Tensor:
        """Logits ``B T K`` after each step that is read out: one or all of them."""
        states = self.states(video)
        return self.head(self.dropout(states if self.readout == "every" else states[:, -1:]))

    def classify(self, video: Tensor) -> Tensor:
        """The logarithm of the steps' mean probabilities, ``B K``."""
        logits = self.step_logits(video).float().log_softmax(dim=-1)
        return logits.logsumexp(dim=1) - math.log(logits.shape[1])

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy of each step that is read out, averaged; logs the top-1 accuracy of the clip."""
        label = batch["label"]
        logits = self.step_logits(batch["video"]).float()
        repeated = label.repeat_interleave(logits.shape[1], dim=0)
        total = self.compare(logits.flatten(0, 1), repeated).total
        with torch.no_grad():
            truth = label if label.ndim == 1 else label.argmax(dim=1)
            guess = logits.softmax(dim=-1).mean(dim=1).argmax(dim=1)
        return Loss(total, {"top1": (guess == truth).float().mean()})
