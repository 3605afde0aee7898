"""Masked prediction: an encoder sees the visible tubelets, decoders predict targets at the others.

``loss = sum_k weight_k * error_k(decoder_k(encoder(video, visible), visible, wanted), target_k(video, wanted))``,
where a target is pixels or a teacher's features (:mod:`filmstrip.objectives.targets`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from filmstrip.nn.tubelet_masking import Masking, choose_tubelets
from filmstrip.protocols import Batch, Loss, Objective


class Prediction(NamedTuple):
    """Something that is predicted at masked positions. Its parts belong to the objective, under names of its own."""

    name: str
    """Name of its loss among the metrics."""
    decoder: nn.Module
    """``decoder(encoded, visible, wanted) -> B K D``."""
    target: nn.Module
    """``target(video, wanted) -> B K D``, float32."""
    error: Callable[..., Tensor]
    """A loss function of ``torch.nn.functional``, by elements."""
    weight: float = 1.0


class MaskedTubelets(Objective):
    """Masked prediction with as many decoders and targets as a method has (``predictions``)."""

    requires = ("video", "seed")
    predictions: tuple[Prediction, ...] = ()

    def __init__(self, encoder: nn.Module, masking: Masking, ratio: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.masking: Masking = masking
        self.ratio = ratio

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The weighted sum of all predictions' errors; each is a metric where there are several."""
        visible, masked = self.masks(batch["seed"])
        losses = self.losses(batch["video"], visible, *self.wanted(batch["seed"], masked))
        metrics = {f"loss_{name}": loss.detach() for name, loss in losses.items()} if len(losses) > 1 else {}
        return Loss(self.total(losses), metrics)

    def masks(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """The visible and the masked tubelets of each clip (see :func:`choose_tubelets`)."""
        return choose_tubelets(seeds, self.encoder.grid, self.masking, self.ratio, use="videomae.masks")

    def wanted(self, seeds: Tensor, masked: Tensor) -> tuple[Tensor, Tensor | None]:
        """Positions that are predicted, ``B K``, and which of them count (``B K`` bool; none: all do).

        By default these are all masked ones.
        """
        return masked, None

    def loss(self, video: Tensor, visible: Tensor, wanted: Tensor, counted: Tensor | None = None) -> Tensor:
        """The loss for a given choice of tubelets."""
        return self.total(self.losses(video, visible, wanted, counted))

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the predictions' errors."""
        terms = [prediction.weight * losses[prediction.name] for prediction in self.predictions]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    def losses(
        self, video: Tensor, visible: Tensor, wanted: Tensor, counted: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Every prediction's error, the mean over elements at the wanted positions of the whole batch that count."""
        encoded, losses = self.encoder(video, visible=visible).tokens, {}
        for name, decoder, target, error, _ in self.predictions:
            with torch.no_grad():
                truth = target(video, wanted)
            predicted = decoder(encoded, visible, wanted).float()
            if counted is None:
                losses[name] = error(predicted, truth)
            else:
                each = error(predicted, truth, reduction="none").mean(dim=-1)
                # Counts differ from clip to clip: one division for the batch.
                losses[name] = torch.where(counted, each, 0.0).sum() / counted.sum()
        return losses

    def predict_masked(self, video: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """All predictions side by side (``B K D``) at ``masked``, from the tubelets at ``visible``."""
        encoded = self.encoder(video, visible=visible).tokens
        said = [prediction.decoder(encoded, visible, masked) for prediction in self.predictions]
        return said[0] if len(said) == 1 else torch.cat(said, dim=-1)
