"""Moments as a set: each annotated moment is matched with one prediction, which is to hit it, and the others abstain.

Carion et al. 2020; for moments Lei et al. 2021. Moments are shares of a video's duration, 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Weight
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.moments import MomentInfo
from filmstrip.errors import UserError
from filmstrip.models.detr import DetrArchitecture
from filmstrip.nn.assignment import assign
from filmstrip.nn.segments import centre_and_length, generalised_iou, start_and_end
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Grounding


@dataclass(frozen=True, kw_only=True)
class SetPredictionConfig(DetrArchitecture, ObjectiveConfig):
    """A network that predicts a set, and the weights of its losses, which are those of the matching costs too."""

    span_weight: Weight
    """Weight of the absolute error of a moment's centre and length."""
    overlap_weight: Weight
    """Weight of one less the generalised overlap."""
    class_weight: Weight
    """Weight of the classification of predictions."""

    def bind(self, info: DataInfo, **more: Any) -> Self:
        """Take the widths of the features from the data, and ``more`` that a method takes."""
        if not isinstance(info, MomentInfo):
            return self
        return replace(self, feature_width=info.width, text_width=info.text_width, **more)

    def check_widths(self) -> None:
        """See that the widths are known.

        Raises:
            UserError: the data told none.
        """
        if not (self.feature_width and self.text_width):
            raise UserError(
                "grounding needs features of videos and of queries: set data.reads to moments, or "
                "objective.feature_width and objective.text_width"
            )


class Predicted(NamedTuple):
    """The predictions of every layer of a decoder."""

    spans: Tensor
    """Centre and length, ``layers B Q 2``."""
    logits: Tensor
    """Logits of classes, ``layers B Q K``."""


class Targets(NamedTuple):
    """Annotated moments, the same number in each row of a batch, of which some are padding."""

    spans: Tensor
    """Centre and length, ``B M 2``."""
    classes: Tensor
    """Class of each, ``B M`` int64: which of the logits are to be high."""
    valid: Tensor
    """Which are no padding, ``B M`` bool."""


class Matched(NamedTuple):
    """Losses of matched predictions, summed over layers, and which these are."""

    span: Tensor
    """Mean absolute error of centre and length."""
    overlap: Tensor
    """Mean of one less the generalised overlap."""
    chosen: Tensor
    """Whether a prediction is matched, ``layers B Q`` bool."""


def targets_of(batch: Batch, *, of_queries: bool = False) -> Targets:
    """The moments of a batch; their class is zero, or with ``of_queries`` the number of their query."""
    query = batch["query_of"]
    classes = query.clamp(min=0) if of_queries else torch.zeros_like(query)
    return Targets(centre_and_length(batch["moments"]), classes, query >= 0)


def matched_losses(predicted: Predicted, targets: Targets, config: SetPredictionConfig) -> Matched:
    """Match predictions and targets at the least total cost, in each layer anew; their errors."""
    layers, rows, count, _ = predicted.spans.shape
    spans, chances = predicted.spans.float(), predicted.logits.float().softmax(dim=-1)
    true, valid = targets.spans.expand(layers, -1, -1, -1), targets.valid.expand(layers, -1, -1)
    apart = (spans[..., :, None, :] - true[..., None, :, :]).abs().sum(dim=-1)
    overlap = generalised_iou(start_and_end(spans)[..., :, None, :], start_and_end(true)[..., None, :, :])
    chance = chances.gather(3, targets.classes[:, None].expand(layers, -1, count, -1))
    cost = config.span_weight * apart - config.overlap_weight * overlap - config.class_weight * chance
    chosen = assign(cost.flatten(0, 1), valid.flatten(0, 1)).unflatten(0, (layers, rows))
    hit = spans.gather(2, chosen[..., None].expand(-1, -1, -1, 2))
    error = (hit - true).abs().mean(dim=-1)
    missed = 1 - generalised_iou(start_and_end(hit), start_and_end(true))
    number = targets.valid.sum().clamp(min=1)
    # Padding is put at a place behind the last.
    places = torch.zeros(layers, rows, count + 1, dtype=torch.bool, device=spans.device)
    places = places.scatter(2, chosen.masked_fill(~valid, count), True)
    return Matched((error * valid).sum() / number, (missed * valid).sum() / number, places[..., :-1])


def foreground_loss(logits: Tensor, chosen: Tensor, background: float) -> Tensor:
    """Cross-entropy of two classes, matched (0) or not (1), of ``layers B Q 2`` logits; summed over layers.

    Predictions that are not matched count ``background`` times as much.
    """
    entropy = F.cross_entropy(logits.float().movedim(-1, 1), (~chosen).long(), reduction="none")
    return (entropy * torch.where(chosen, 1.0, background)).mean() * logits.shape[0]


def segments_of(spans: Tensor, seconds: Tensor) -> Tensor:
    """Start and end in seconds, float64 on the CPU, of ``... 2`` spans of a video of so many ``seconds``."""
    return start_and_end(spans.double().cpu()).clamp(0.0, 1.0) * seconds.cpu()


def groundings(spans: Tensor, scores: Tensor, batch: Batch, saliency: Tensor | None = None) -> list[list[Grounding]]:
    """What each video's query found, from spans ``B Q 2`` (centre and length) with scores ``B Q``, best first."""
    scores, found = scores.float().cpu(), []
    for i, best in enumerate(scores.argsort(dim=1, descending=True, stable=True)):
        clips = None if saliency is None else saliency[i, : int(batch["length"][i])].float().cpu()
        segments = segments_of(spans[i], batch["seconds"][i])
        found.append([Grounding(segments[best], scores[i][best], clips)])
    return found
