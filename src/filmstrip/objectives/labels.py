"""Learning from labels: one class, several classes or numbers; the configuration, the last layer and the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, Rate, Share, Weight
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Labels, Loss


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(ObjectiveConfig):
    """The part of the configuration that is about labels."""

    num_classes: Count
    """Number of classes, or of numbers. In training it comes from the data; a preset states its paper's."""
    labels: Labels = "class"
    """What labels are. In training it comes from the data (``data.reads.labels``)."""
    label_smoothing: Share = 0.0
    """Probability that the loss spreads evenly over all classes; of several classes, over its two sides."""
    balance: Share = 0.0
    """Balance of the classes in the loss: a class of ``n`` training videos has a weight in proportion to ``n`` to the
    power of minus the balance; 0 weights all videos alike, 1 all classes. Of several classes, what is weighted is
    where a class is present."""
    class_weights: tuple[Weight, ...] = ()
    """Weights of the classes in the loss, in their order. In training with a ``balance`` they come from the data."""
    number_means: tuple[AnyNumber, ...] = ()
    """Mean of each number, at which predictions begin. In training it comes from the data."""
    number_stds: tuple[Rate, ...] = ()
    """Standard deviation of each number, in which errors are measured. In training it comes from the data."""

    def bind(self, info: DataInfo) -> Self:
        """Take from the data what labels are, their number, the classes' weights and the numbers' scale, if there are
        labels.

        Raises:
            UserError: classes are to be weighted, and there are none.
        """
        bound = super().bind(info)
        assert isinstance(bound, type(self))
        if not info.classes:
            return bound
        if info.labels == "number" and (self.balance or self.class_weights):
            raise UserError(
                "objective.balance and objective.class_weights are for classes, and the labels are numbers: leave "
                "them out"
            )
        weights = bound.class_weights
        if self.balance:
            weights = balanced_weights(info, self.balance)
        return replace(
            bound,
            num_classes=len(info.classes),
            labels=info.labels,
            class_weights=weights,
            number_means=info.number_means,
            number_stds=info.number_stds,
        )


def balanced_weights(info: DataInfo, balance: float) -> tuple[float, ...]:
    """The weight of each class in the loss, whose mean over the training videos is 1; a class without videos has 0.
    Of several classes, the weight of a class where it is present, which is 1 for one that half of the videos have."""
    counts = torch.tensor(info.class_counts, dtype=torch.float64)
    if info.labels == "several":
        weights = ((info.num_train - counts) / counts.clamp(min=1)) ** balance
    else:
        weights = counts.clamp(min=1) ** -balance
        weights = weights * counts.sum() / (weights * counts).sum()
    return tuple(round(weight, 6) for weight in torch.where(counts > 0, weights, 0.0).tolist())


class Scaled(nn.Linear):
    """A linear layer whose outputs are in the numbers' own units: standard deviations from their means."""

    def __init__(self, width: int, config: LabelsConfig) -> None:
        super().__init__(width, config.num_classes)
        count = config.num_classes
        self.register_buffer("means", torch.tensor(config.number_means or (0.0,) * count), persistent=False)
        self.register_buffer("stds", torch.tensor(config.number_stds or (1.0,) * count), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``B D -> B K``."""
        return super().forward(x) * self.stds + self.means


def last_layer(width: int, config: LabelsConfig) -> nn.Linear:
    """The linear layer that makes logits of classes, or numbers."""
    return Scaled(width, config) if config.labels == "number" else nn.Linear(width, config.num_classes)


class LabelLoss(nn.Module):
    """The loss of outputs ``B K`` against labels: cross-entropy of one class (``B`` int64, or ``B K`` probabilities),
    binary cross-entropy of each of several (``B K``), or the squared error of numbers (``B K``) in standard
    deviations.

    Means are over the rows of a batch, whatever their weights, so that those of several processes average exactly.
    """

    def __init__(self, config: LabelsConfig) -> None:
        super().__init__()
        if config.class_weights and len(config.class_weights) != config.num_classes:
            raise UserError(
                f"objective.class_weights are {len(config.class_weights)}, and there are {config.num_classes} "
                "classes: give one for each, in their order"
            )
        self.labels, self.smoothing = config.labels, config.label_smoothing
        weights = torch.tensor(config.class_weights) if config.class_weights else None
        self.register_buffer("weights", weights, persistent=False)
        stds = torch.tensor(config.number_stds) if config.number_stds else None
        self.register_buffer("stds", stds, persistent=False)

    def forward(self, outputs: Tensor, label: Tensor) -> Loss:
        """The loss, with the top-1 accuracy (against the heavier of two mixed classes); of several classes the share
        of rows whose most probable class is one of theirs (``hit1``); of numbers the mean absolute error
        (``mae``)."""
        outputs = outputs.float()
        if self.labels == "several":
            smooth = label * (1 - self.smoothing) + self.smoothing / 2
            total = F.binary_cross_entropy_with_logits(outputs, smooth, pos_weight=self.weights)
            with torch.no_grad():
                best = outputs.argmax(dim=1, keepdim=True)
                return Loss(total, {"hit1": (label.gather(1, best) >= 0.5).float().mean()})
        if self.labels == "number":
            error = outputs - label
            total = (error if self.stds is None else error / self.stds).square().mean()
            return Loss(total, {"mae": error.detach().abs().mean()})
        if self.weights is None:
            total = F.cross_entropy(outputs, label, label_smoothing=self.smoothing)
        else:
            total = F.cross_entropy(
                outputs, label, weight=self.weights, reduction="none", label_smoothing=self.smoothing
            ).mean()
        with torch.no_grad():
            truth = label if label.ndim == 1 else label.argmax(dim=1)
            return Loss(total, {"top1": (outputs.argmax(dim=1) == truth).float().mean()})
