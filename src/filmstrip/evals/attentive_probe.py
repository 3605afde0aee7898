"""Attentive probe: a learned query attends to frozen tokens (Bardes et al. 2024; Rajasegaran et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from filmstrip.bounds import Count, Rate, Seed, Weight
from filmstrip.evals.features import Probe, by_layer, top1_of, train_and_test
from filmstrip.inference import encoder_of
from filmstrip.nn.attentive_pooling import AttentivePooling, PlainAttentivePooling
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class AttentiveProbe(Evaluation):
    """Top-1 accuracy of attention from a learned query and a linear layer, trained on each layer's tokens.

    The recipe is the same for every layer and model: AdamW, cosine from ``lr``, ``epochs`` passes over the features.
    """

    compares_classes: ClassVar[bool] = True
    classifies: ClassVar[bool] = True
    uses_training_split: ClassVar[bool] = True

    pooling: Literal["block", "plain"] = "block"
    """Pooling: a cross-attention block with a feed-forward network (V-JEPA), or one attention alone (Toto)."""
    epochs: Count = 20
    """Number of passes over the features."""
    lr: Rate = 1e-3
    """Initial learning rate."""
    weight_decay: Weight = 0.01
    """Weight decay of AdamW."""
    batch_size: Count = 16
    """Number of videos in a step."""
    choose_layer: bool = False
    """Whether a layer is also chosen on a held-out fifth of the training videos, which fits every layer twice."""
    cache: Path | None = None
    """Folder in which features are cached, so that several probes of the same weights encode the videos once."""
    seed: Seed = 0
    """Seed of the probe's initial weights and of the order of the videos."""

    def check(self, subject: Subject) -> None:
        """The objective has an encoder."""
        encoder_of(subject.objective)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``attentive/layer_I/top1``, then the maximum and its layer."""
        train, test = train_and_test(subject, tokens=True, batch_size=self.batch_size, cache=self.cache)
        yield from by_layer("attentive", subject, train, test, self.on(subject), choose=self.choose_layer)

    def on(self, subject: Subject) -> Probe:
        """The probe as a function of features and labels, for the subject's classes and on its device."""
        num_classes = len(subject.source.classes)

        def probe(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
            return self.probabilities(train, labels, test, num_classes, subject.device)

        return probe

    def probabilities(
        self, train: Tensor, labels: Tensor, test: Tensor, num_classes: int, device: torch.device
    ) -> Tensor:
        """Class probabilities ``M K`` of the tokens ``test`` (``M T D``) by a probe trained on the tokens ``train``
        (``N T D``)."""
        probe = self.fit(train, labels, num_classes, device)
        with torch.inference_mode():
            return torch.cat([probe(x.to(device)).softmax(dim=1).cpu() for x in test.split(self.batch_size)])

    def top1(
        self,
        train: Tensor,
        train_labels: Tensor,
        test: Tensor,
        test_labels: Tensor,
        num_classes: int,
        device: torch.device,
    ) -> float:
        """Accuracy on the tokens ``test`` (``M T D``) of a probe trained on the tokens ``train`` (``N T D``)."""
        return top1_of(self.probabilities(train, train_labels, test, num_classes, device), test_labels)

    def fit(self, tokens: Tensor, labels: Tensor, num_classes: int, device: torch.device) -> nn.Module:
        """A probe trained on ``N T D`` tokens; the global random state is restored."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            kind = PlainAttentivePooling if self.pooling == "plain" else AttentivePooling
            probe = kind(tokens.shape[2], num_classes).to(device)
        order = torch.Generator().manual_seed(self.seed)
        optimiser = torch.optim.AdamW(probe.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        steps = self.epochs * -(-len(tokens) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        with torch.inference_mode(False), torch.enable_grad():
            for _ in range(self.epochs):
                for rows in torch.randperm(len(tokens), generator=order).split(self.batch_size):
                    loss = cross_entropy(probe(tokens[rows].to(device)), labels[rows].to(device))
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    schedule.step()
        return probe.eval()
