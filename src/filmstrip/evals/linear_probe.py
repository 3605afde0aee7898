"""Linear probe: multinomial logistic regression on standardised pooled features, at every layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from filmstrip.bounds import Count, NotEmpty, Weight
from filmstrip.evals.features import Probe, by_layer, hold_out, top1_of, train_and_test
from filmstrip.inference import encoder_of
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Evaluation):
    """Top-1 accuracy of a linear classifier on frozen features, fitted by L-BFGS to the training split, per layer.

    The penalty is selected on a held-out fifth of the training videos; the classifier is then refitted to all.
    """

    compares_classes: ClassVar[bool] = True
    classifies: ClassVar[bool] = True
    uses_training_split: ClassVar[bool] = True

    penalties: Annotated[tuple[Weight, ...], NotEmpty] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Candidate L2 penalties: ``penalty / 2 * |weights|^2`` is added to the mean cross-entropy."""
    num_clips: Count = 1
    """Number of clips per video whose features are averaged."""
    batch_size: Count = 16
    """Number of clips encoded at once."""
    choose_layer: bool = False
    """Whether a layer is also chosen on a held-out fifth of the training videos, which fits every layer twice."""
    cache: Path | None = None
    """Folder in which features are cached, so that several probes of the same weights encode the videos once."""

    def check(self, subject: Subject) -> None:
        """The objective has an encoder."""
        encoder_of(subject.objective)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``linear/layer_I/top1``, then the maximum and its layer."""
        train, test = train_and_test(subject, num_clips=self.num_clips, batch_size=self.batch_size, cache=self.cache)
        yield from by_layer("linear", subject, train, test, self.on(subject), choose=self.choose_layer)

    def on(self, subject: Subject) -> Probe:
        """The probe as a function of features and labels, for the subject's classes and on its device."""
        num_classes, where = len(subject.source.classes), subject.device

        def probe(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
            return self.probabilities(train.to(where), labels.to(where), test.to(where), num_classes)

        return probe

    def probabilities(self, train: Tensor, labels: Tensor, test: Tensor, num_classes: int) -> Tensor:
        """Class probabilities ``M K`` of ``test`` (``M D``) by a classifier fitted to ``train`` (``N D``)."""
        mean, scale = train.mean(dim=0), train.std(dim=0, correction=0)
        # A constant feature would be divided by rounding noise.
        scale = torch.where(scale > 1e-6 * mean.abs() + 1e-12, scale, torch.ones_like(scale))
        train, test = (train - mean) / scale, (test - mean) / scale
        penalty = self._choose_penalty(train, labels, num_classes)
        weight, bias = fit_logistic(train, labels, num_classes, penalty)
        return torch.addmm(bias, test, weight).softmax(dim=1)

    def top1(self, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int) -> float:
        """Accuracy on ``test`` (``M D``) of a classifier fitted to ``train`` (``N D``)."""
        return top1_of(self.probabilities(train, train_labels, test, num_classes), test_labels)

    def _choose_penalty(self, train: Tensor, labels: Tensor, num_classes: int) -> float:
        held_out = hold_out(labels)
        if not held_out.any() or len(self.penalties) == 1:
            return self.penalties[len(self.penalties) // 2]
        fitted, scored = train[~held_out], train[held_out]
        losses = [
            cross_entropy(torch.addmm(bias, scored, weight), labels[held_out]).item()
            for weight, bias in (
                fit_logistic(fitted, labels[~held_out], num_classes, penalty) for penalty in self.penalties
            )
        ]
        return self.penalties[losses.index(min(losses))]


def fit_logistic(
    features: Tensor, labels: Tensor, num_classes: int, penalty: float, max_iter: int = 200
) -> tuple[Tensor, Tensor]:
    """Weights ``D K`` and biases ``K`` that minimise mean cross-entropy plus ``penalty / 2 * |weights|^2``.

    The problem is convex and starts at zero, so the result is deterministic.
    """
    with torch.inference_mode(False), torch.enable_grad():
        weight = features.new_zeros(features.shape[1], num_classes).requires_grad_()
        bias = features.new_zeros(num_classes).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [weight, bias],
            max_iter=max_iter,
            tolerance_grad=1e-6,
            tolerance_change=1e-10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = cross_entropy(torch.addmm(bias, features, weight), labels) + penalty / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
    return weight.detach(), bias.detach()
