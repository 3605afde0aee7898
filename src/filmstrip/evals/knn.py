"""k-nearest-neighbour probe: a measure of the feature space without training (Wu et al. 2018, section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from filmstrip.bounds import Count, Rate
from filmstrip.errors import UserError
from filmstrip.evals.features import Probe, by_layer, train_and_test
from filmstrip.inference import encoder_of
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class KNN(Evaluation):
    """Top-1 accuracy of a vote of the ``k`` nearest training videos, weighted by ``exp(cosine / temperature)``."""

    compares_classes: ClassVar[bool] = True
    classifies: ClassVar[bool] = True
    uses_training_split: ClassVar[bool] = True

    k: Count = 20
    """Number of neighbours that vote."""
    temperature: Rate = 0.07
    """Temperature of the votes' weights."""
    num_clips: Count = 1
    """Number of clips per video whose features are averaged."""
    batch_size: Count = 16
    """Number of clips encoded at once."""
    choose_layer: bool = False
    """Whether a layer is also chosen on a held-out fifth of the training videos, which fits every layer twice."""
    cache: Path | None = None
    """Folder in which features are cached, so that several probes of the same weights encode the videos once."""

    def check(self, subject: Subject) -> None:
        """The objective has an encoder, and there are at least ``k`` labelled training videos."""
        encoder_of(subject.objective)
        labelled = sum(sample.label is not None for sample in subject.source.split(subject.data.train_split))
        if self.k > labelled:
            raise UserError(
                f"k is {self.k}, and the training split has {labelled} labelled videos: use a smaller --k"
            )

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``knn/layer_I/top1``, then the maximum and its layer."""
        train, test = train_and_test(subject, num_clips=self.num_clips, batch_size=self.batch_size, cache=self.cache)
        yield from by_layer("knn", subject, train, test, self.on(subject), choose=self.choose_layer)

    def on(self, subject: Subject) -> Probe:
        """The vote as a function of features and labels, for the subject's classes and on its device."""
        num_classes, where = len(subject.source.classes), subject.device

        def probe(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
            votes = self.votes(train.to(where), labels.to(where), test.to(where), num_classes)
            return votes / votes.sum(dim=1, keepdim=True)

        return probe

    def votes(self, train: Tensor, labels: Tensor, test: Tensor, num_classes: int) -> Tensor:
        """Votes ``M K`` for each of ``M D`` test features, from ``N D`` labelled training features.

        Training videos tied for the last of the ``k`` neighbours share the remaining votes, so that the result does
        not depend on their order.
        """
        train, test = normalize(train, dim=1), normalize(test, dim=1)
        k = min(self.k, len(train))
        classes = one_hot(labels, num_classes).to(train.dtype)
        return torch.cat([self._vote(chunk @ train.T, k) @ classes for chunk in test.split(1024)])

    def _vote(self, similarity: Tensor, k: int) -> Tensor:
        """The weight of each training video in each test video's vote, ``M N``."""
        last = similarity.topk(k, dim=1).values[:, -1:]
        # Equal cosines can differ by rounding.
        tied = (similarity - last).abs() < 1e-6
        nearer = (similarity > last) & ~tied
        share = (k - nearer.sum(dim=1, keepdim=True)) / tied.sum(dim=1, keepdim=True)
        weight = (similarity / self.temperature).exp()
        return weight * (nearer + tied * share)
