"""Classification: an encoder, a pool over its tokens, a linear head, cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Share, ShareBelowOne
from filmstrip.data.config import DataInfo
from filmstrip.models.hub_networks import described_for_hub
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Encoder, Loss, Objective
from filmstrip.weights.keymap import Weights


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(ObjectiveConfig):
    """The part of the configuration that all classifiers share."""

    num_classes: Count
    """Number of classes. In training it comes from the data; a preset states its paper's."""
    label_smoothing: Share = 0.0
    """Probability that the loss spreads evenly over all classes."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate before the head."""

    def bind(self, info: DataInfo) -> Self:
        """Take the number of classes from the data, if it has any."""
        return replace(self, num_classes=len(info.classes)) if info.classes else self


class Classification(Objective):
    """Classifies clips. Labels are ``B`` int64, or ``B K`` probabilities where classes were mixed.

    ``norm`` normalises the pooled token (a ViT's ``fc_norm``), with ``norm_eps``. That token has ``width`` channels,
    by default as many as the others.
    """

    requires = ("video", "label")

    def __init__(
        self,
        encoder: Encoder,
        config: ClassificationConfig,
        *,
        norm: bool = False,
        norm_eps: float = 1e-6,
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        width = width or encoder.width
        self.norm = nn.LayerNorm(width, eps=norm_eps) if norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, config.num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.label_smoothing = config.label_smoothing

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video."""
        return self.head(self.dropout(self.norm(self.encoder(video).pooled())))

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """The classifier of ``transformers`` that has this network and these weights.

        Raises:
            UserError: there is none.
        """
        config, layout = described_for_hub(self.encoder)
        weights = layout.theirs(self.state_dict(), layout.classifier, self.encoder.patch_size)
        return {**config, "architectures": [layout.classifier_name]}, weights

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy of the batch; also logs its top-1 accuracy (against the heavier of two mixed classes)."""
        return self.compare(self.classify(batch["video"]).float(), batch["label"])

    def compare(self, logits: Tensor, label: Tensor) -> Loss:
        """The loss of logits ``B K`` against the labels."""
        total = F.cross_entropy(logits, label, label_smoothing=self.label_smoothing)
        with torch.no_grad():
            truth = label if label.ndim == 1 else label.argmax(dim=1)
            top1 = (logits.argmax(dim=1) == truth).float().mean()
        return Loss(total, {"top1": top1})

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; norm and head come after its last."""
        prefix = "encoder."
        if name.startswith(prefix):
            return self.encoder.depth_of(name.removeprefix(prefix))
        return self.encoder.depth + 1
