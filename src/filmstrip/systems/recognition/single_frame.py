"""A single frame: what can be recognised without any motion.

A 2D residual network names each frame on its own; a clip's probabilities are the mean of its frames'. The baseline
that every video network must be held against: Karpathy et al., "Large-scale Video Classification with Convolutional
Neural Networks", CVPR 2014; network after He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    filmstrip train recognition.single_frame:small --data.path PATH

Where we deviate: the network is a ResNet-18 (without the max pooling of its stem) instead of an AlexNet; frames are
spread over the whole video by segments.

The paper reports, on Sports-1M (487 classes, top-5 by video), 77.7 for a single frame, 76.8 for early, 78.7 for late
and 80.2 for slow fusion of frames. ``filmstrip claims single_frame_directions`` shows a set where it is at chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from einops import rearrange, reduce
from torch import Tensor

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet import ResNet, ResNetArchitecture
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Batch, Loss
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW
from filmstrip.train.schedules import Cosine


class SingleFrame(Classification):
    """Every frame of a clip is a sample with the clip's label; testing averages their probabilities."""

    takes_labels = ("class",)

    def frame_logits(self, video: Tensor) -> Tensor:
        """Logits ``B T K`` of each frame."""
        features = self.encoder(video)
        pooled = reduce(features.tokens, "b (t n) d -> b t d", "mean", t=features.grid.t)
        return self.head(self.dropout(self.norm(pooled)))

    def classify(self, video: Tensor) -> Tensor:
        """The logarithm of the mean over frames of their probabilities, ``B K``."""
        logits = self.frame_logits(video)
        return logits.log_softmax(dim=-1).logsumexp(dim=1) - math.log(logits.shape[1])

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy of each frame, averaged; logs the top-1 accuracy of the averaged probabilities."""
        label = batch["label"]
        logits = self.frame_logits(batch["video"]).float()
        each = rearrange(logits, "b t k -> (b t) k")
        total = self.compare(each, label.repeat_interleave(logits.shape[1], dim=0)).total
        truth = label if label.ndim == 1 else label.argmax(dim=1)
        guess = logits.detach().softmax(dim=-1).mean(dim=1).argmax(dim=1)
        return Loss(total, {"top1": (guess == truth).float().mean()})


@dataclass(frozen=True, kw_only=True)
class SingleFrameConfig(ResNetArchitecture, ClassificationConfig):
    """A residual network of basic blocks within frames."""

    def build(self) -> SingleFrame:
        """Build the network with fresh weights."""
        return SingleFrame(ResNet(self), self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels, where it stays at chance; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=4, sampling="segments", size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=SingleFrameConfig(widths=(16, 32, 64), depths=(1, 1, 1), early_stride=2, num_classes=8),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def small() -> Run:
    """The counterpart of ``recognition.r2plus1d:small``: the same stages, frames of the same size, tested alike."""
    return Run(
        data=Data(
            clip=Clip(num_frames=4, sampling="segments", size=56, short_side=(56, 64)),
            augment=Augment(brightness=0.2, contrast=0.2),
            batch_size=16,
        ),
        objective=SingleFrameConfig(
            widths=(16, 32, 64, 128),
            depths=(1, 1, 1, 1),
            label_smoothing=0.1,
            num_classes=10,
        ),
        optim=AdamW(lr=4e-3, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(300)),
        evals=(MultiView(num_clips=4, num_crops=3),),
    )


def resnet18_k400() -> Run:
    """ResNet-18 on three frames of each Kinetics-400 video."""
    return Run(
        data=Data(
            clip=Clip(num_frames=3, sampling="segments", crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(),
            batch_size=256,
            num_workers=10,
        ),
        objective=SingleFrameConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 2), early_stride=2, num_classes=400),
        optim=SGD(lr=0.1, weight_decay=1e-4, schedule=Cosine(warmup=5 / 100)),
        train=Loop(length=Epochs(100), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )
