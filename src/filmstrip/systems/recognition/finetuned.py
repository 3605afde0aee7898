"""Fine-tuning: one attention over the last layer's tokens and a linear layer, trained together with the encoder.

With ``pooling`` of ``block`` the head is that of V-JEPA 2's released classifiers, which ``--init`` brings with it.

The encoder is that of any self-supervised method with layers of one width; its own loss may be kept as an additional
one (``learner_weight``). Toto's use for the localisation of CATER's snitch: which of 36 cells of the ground hides
the golden ball at the end of a video (Rajasegaran et al., "An Empirical Study of Autoregressive Pre-training from
Videos", 2025; Girdhar and Ramanan, "CATER: A diagnostic dataset for Compositional Actions & TEmporal Reasoning",
2020).

    filmstrip train recognition.finetuned:toto_large_cater_32 --init runs/toto --data CATER
    filmstrip data make cups --out cups
    filmstrip train recognition.finetuned --init hf:facebook/vjepa2-vitl-fpc16-256-ssv2 --optim.lr 1e-4 --data PATH
    filmstrip train recognition.finetuned:tiny_toto --init runs/toto --data cups --data.clip.sampling uniform

Which head, which rates and how long is not in the paper: the pooling is that of its probes; AdamW at 1e-4 with a
decay of 0.9 a layer, 50 epochs and batches of 32 are ours, and so is a rotary base of 20,000 for 32 frames, of which
there are twice as many codes as in pretraining. Frames are taken evenly from the whole video, and nothing is
mirrored. Evaluation sees the middle square of a frame: resize CATER's, which are 320 x 240, to squares beforehand.

The paper reports (CATER, top-1, 16 and 32 frames, Toto-large): 62.8, 72.9; V3D 55.2, 69.7; TFC-V3D 54.6, 70.2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from torch import Tensor, nn

from filmstrip.bounds import CountOrZero
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.vjepa_classifier import attentive_head, classifier_for_hub, pooling_of
from filmstrip.nn.attentive_pooling import PlainAttentivePooling
from filmstrip.objectives.labels import LabelLoss, LabelsConfig, last_layer
from filmstrip.objectives.on_encoder import OnEncoder, OnEncoderConfig
from filmstrip.protocols import Batch, Loss
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights


class Finetuned(OnEncoder):
    """An encoder and a classifier of its last layer's tokens; a :class:`~filmstrip.protocols.Classifier`."""

    takes_labels = ("class", "several", "number")

    def __init__(self, config: FinetunedConfig) -> None:
        super().__init__(config)
        self.head: nn.Module
        if config.pooling == "plain":
            self.head = PlainAttentivePooling(self.encoder.width, config.num_classes)
        else:
            num_heads = config.pooling_heads or max(1, self.encoder.width // 64)
            sizes = {"depth": config.pooling_depth, "num_heads": num_heads}
            self.head = attentive_head(self.encoder.width, config.num_classes, **sizes)
        if config.labels == "number":
            self.head.head = last_layer(self.encoder.width, config)
        self.criterion = LabelLoss(config)
        self.labels = config.labels
        self.requires = self.needs("video", "label")
        self.train(self.training)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of the labels, and the encoder's own loss with its weight."""
        own, features = self.features(batch)
        nats, metrics = self.criterion(self.head(features.tokens), batch["label"])
        if own is None:
            return Loss(nats, metrics)
        metrics |= {"nats": nats.detach(), "learner": own.total.detach()}
        return Loss(nats + self.learner_weight * own.total, metrics)

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video."""
        return self.head(self.features_of(video).tokens)

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """The classifier of ``transformers`` that has this network and these weights: V-JEPA 2's.

        Raises:
            UserError: there is none.
        """
        if self.labels == "number":
            raise UserError("transformers' models of video have no layer that scales numbers: give --format onnx")
        return classifier_for_hub(self.encoder, self.head)


@dataclass(frozen=True, kw_only=True)
class FinetunedConfig(LabelsConfig, OnEncoderConfig):
    """An encoder and a classifier."""

    pooling: Literal["plain", "block"] = "plain"
    """Pooling of the tokens: one attention alone (Toto), or a block with a feed-forward network (V-JEPA)."""
    pooling_depth: CountOrZero = 0
    """Number of blocks of self-attention before the block that pools."""
    pooling_heads: CountOrZero = 0
    """Number of heads of that block and of those before it; zero for heads of 64 channels."""

    def with_head_of_hub(self, config: Mapping[str, Any], typed: Collection[str] = ()) -> Self:
        """See :meth:`AroundLearnerConfig.with_head_of_hub`: V-JEPA 2 pools by blocks."""
        sizes = pooling_of(config)
        if sizes is None or any(name.startswith("objective.pooling") for name in typed):
            return self
        return replace(self, pooling="block", pooling_depth=sizes["depth"], pooling_heads=sizes["num_heads"])

    def build(self) -> Finetuned:
        """Build everything with fresh weights.

        Raises:
            UserError: the learner has no encoder with layers, or is to learn and cannot.
        """
        return Finetuned(self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels on VideoMAE's encoder; trains in seconds on two CPU cores."""
    learner = find("pretraining.videomae:tiny")
    return Run(
        data=replace(learner.data, synthetic=Motions(train_per_class=12, test_per_class=4), batch_size=16),
        objective=FinetunedConfig(learner=learner.objective, num_classes=8),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def tiny_toto() -> Run:
    """The same on Toto, which goes on learning to predict the next code, at 32 x 32 pixels."""
    learner, run = find("pretraining.toto:tiny"), tiny()
    objective = replace(run.objective, learner=learner.objective, learner_weight=1.0)
    return replace(run, data=replace(learner.data, reads=Clips()), objective=objective)


def _cater(num_frames: int, rope_base: float) -> Run:
    """Toto-large on so many frames of 128 x 128 pixels, spread over each video."""
    learner = replace(find("pretraining.toto:large").objective, num_frames=num_frames, rope_base=rope_base)
    return Run(
        data=Data(
            reads=Clips(layout="cater"),
            clip=Clip(num_frames=num_frames, sampling="uniform", size=128, short_side=(128, 128)),
            augment=Augment(mirror=0.0),
            batch_size=32,
            num_workers=10,
            eval_split="val",
        ),
        objective=FinetunedConfig(learner=learner, num_classes=36, learner_weight=1.0),
        optim=AdamW(
            lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, layer_decay=0.9, schedule=Cosine(warmup=0.05, final=0.0)
        ),
        train=Loop(length=Epochs(50), precision="bfloat16", clip_grad=1.0),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def toto_large_cater_16() -> Run:
    """Toto-large on 16 frames of CATER's videos: 4096 codes, as in pretraining."""
    return _cater(16, 10_000.0)


def toto_large_cater_32() -> Run:
    """Toto-large on 32 frames, 8192 codes."""
    return _cater(32, 20_000.0)
