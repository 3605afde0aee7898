"""Classification: an encoder, a pool over its tokens, a linear head, cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from filmstrip.bounds import ShareBelowOne
from filmstrip.errors import UserError
from filmstrip.models.hub_networks import described_for_hub
from filmstrip.objectives.labels import LabelLoss, LabelsConfig, last_layer
from filmstrip.protocols import Batch, Encoder, Loss, Objective
from filmstrip.weights.keymap import Weights


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(LabelsConfig):
    """The part of the configuration that all classifiers share."""

    dropout: ShareBelowOne = 0.0
    """Dropout rate before the head."""


class Classification(Objective):
    """Classifies clips, or predicts several classes or numbers of each: see
    :class:`~filmstrip.objectives.labels.LabelLoss` for the labels.

    ``norm`` normalises the pooled token (a ViT's ``fc_norm``), with ``norm_eps``. That token has ``width`` channels,
    by default as many as the others.
    """

    requires = ("video", "label")
    takes_labels = ("class", "several", "number")

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
        self.head = last_layer(width, config)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.criterion = LabelLoss(config)
        self.labels = config.labels

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video, or numbers."""
        return self.head(self.dropout(self.norm(self.encoder(video).pooled())))

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """The classifier of ``transformers`` that has this network and these weights.

        Raises:
            UserError: there is none.
        """
        if self.labels == "number":
            raise UserError("transformers' models of video have no layer that scales numbers: give --format onnx")
        config, layout = described_for_hub(self.encoder)
        weights = layout.theirs(self.state_dict(), layout.classifier, self.encoder.patch_size)
        several = {"problem_type": "multi_label_classification"} if self.labels == "several" else {}
        return {**config, **several, "architectures": [layout.classifier_name]}, weights

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of the batch, with its top-1 accuracy or what stands for it."""
        return self.compare(self.classify(batch["video"]), batch["label"])

    def compare(self, outputs: Tensor, label: Tensor) -> Loss:
        """The loss of logits, or numbers, ``B K`` against the labels."""
        return self.criterion(outputs, label)

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; norm and head come after its last."""
        prefix = "encoder."
        if name.startswith(prefix):
            return self.encoder.depth_of(name.removeprefix(prefix))
        return self.encoder.depth + 1
