"""R(2+1)D: a residual network whose 3D convolutions are split into space and time.

Each 3 x 3 x 3 convolution becomes a 3 x 3 one within frames and one over 3 frames at each position, with a
nonlinearity between them and as many parameters: easier to optimise, and better at the same size.
Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.

    filmstrip train recognition.r2plus1d:small --data.path PATH

Where we deviate: the published networks share the middle width of a block's two convolutions, which the paper's
formula does not; R(2+1)D-18 has 31.3M parameters below its classifier and 40.5 G multiply-adds (16 x 112 x 112) only
so, and ours has. ``small`` is our own size for training from scratch on hundreds of videos and a CPU; it sees each
clip less its mean frame.

Here: 29 of 30 test videos of Weizmann, three actors it never saw (``small``, from scratch; ``docs/performance.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet import ResNet, ResNet2Plus1DArchitecture
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class R2Plus1DConfig(ResNet2Plus1DArchitecture, ClassificationConfig):
    """A (2+1)D residual network of basic blocks with a linear classifier on its mean token."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(ResNet(self), self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=R2Plus1DConfig(widths=(16, 32, 64), depths=(1, 1, 1), stem_width=12, early_stride=2, num_classes=8),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def tiny_32() -> Run:
    """Plain motions at 32 x 32 pixels on a finer grid; starts from ``pretraining.future_frames:tiny``."""
    run = tiny()
    return replace(
        run,
        data=replace(
            run.data,
            synthetic=Motions(train_per_class=12, test_per_class=4, size=32, difficulty=0.0, plain=True),
            clip=Clip(num_frames=8, stride=2, size=32, short_side=(32, 32)),
        ),
        objective=R2Plus1DConfig(widths=(16, 32, 64), depths=(1, 1, 1), stem_width=12, num_classes=8),
    )


def small() -> Run:
    """For training from scratch on a few dozen to a few thousand videos, on a CPU."""
    return Run(
        data=Data(
            clip=Clip(num_frames=12, stride=3, size=56, short_side=(56, 64)),
            augment=Augment(brightness=0.2, contrast=0.2),
            batch_size=16,
        ),
        objective=R2Plus1DConfig(
            widths=(16, 32, 64, 128),
            depths=(1, 1, 1, 1),
            stem_width=16,
            subtract_mean_frame=True,
            label_smoothing=0.1,
            num_classes=10,
        ),
        optim=AdamW(lr=4e-3, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(600)),
        evals=(MultiView(num_clips=4, num_crops=3),),
    )


def r2plus1d_18_k400() -> Run:
    """R(2+1)D-18 on Kinetics-400, from scratch: 31.3M parameters and a classifier, 40.5 G multiply-adds."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=2, size=112, short_side=(128, 171)),
            augment=Augment(),
            batch_size=256,
            num_workers=10,
        ),
        objective=R2Plus1DConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 2), stem_width=45, num_classes=400),
        optim=SGD(lr=0.08, weight_decay=1e-4, schedule=Cosine(warmup=10 / 45)),
        train=Loop(length=Epochs(45), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=1),),
    )
