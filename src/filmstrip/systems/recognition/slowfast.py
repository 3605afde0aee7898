"""SlowFast: one network sees few frames with many channels, a second many frames with few, and tells the first.

What things are changes slowly and needs capacity; how they move changes fast and needs frames. Feichtenhofer et al.,
"SlowFast Networks for Video Recognition", ICCV 2019.

    filmstrip train recognition.slowfast:r50_4x16_k400 --data.path PATH

A clip is what the fast network sees: ``r50_4x16`` reads 32 frames, 2 apart, of which the slow network takes 4, about
16 apart. Where we deviate: the warm-up is linear from zero; a single cosine; epochs of a video each.

The ResNet-101 convolves over time in the first 6 of the third stage's 23 blocks, which makes 53.8M parameters.

The released weights have, on Kinetics-400 (top-1): 75.6 (``r50_4x16``), 77.0 (``r50_8x8``); the slow pathway alone
72.7 with 4 frames.

Measured here (``python claims/slowfast_pathways.py``; motions that slow frames miss, chance 12.5): slow 16.0, with
twice the frames 75.5, slow and fast 73.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from filmstrip.bounds import Count, CountOrZero, NotEmpty, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet3d import DEPTHS
from filmstrip.models.slowfast import SlowFast
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim


@dataclass(frozen=True, kw_only=True)
class SlowFastConfig(ClassificationConfig):
    """Two residual networks of bottlenecks; the defaults are SlowFast R50 4 x 16."""

    stem_width: Count = 64
    """Of the slow network."""
    depths: Annotated[tuple[Count, ...], NotEmpty] = DEPTHS[50]
    speed_ratio: Count = 8
    """How many frames the fast network sees for each one of the slow network (alpha)."""
    narrower: Count = 8
    """How many times more channels the slow network has (1 / beta)."""
    fusion_frames: Count = 5
    """Kernel in time of the convolutions from the fast network to the slow one."""
    with_time: tuple[CountOrZero, ...] | None = None
    """How many blocks of each stage convolve over time; by default all that do anywhere."""
    dilated: bool = False
    """Keep height and width in the last stage, with dilated convolutions: for detection."""
    dropout: ShareBelowOne = 0.5
    """Before the head."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        encoder = SlowFast(
            stem_width=self.stem_width,
            depths=self.depths,
            speed_ratio=self.speed_ratio,
            narrower=self.narrower,
            fusion_frames=self.fusion_frames,
            with_time=self.with_time,
            dilated=self.dilated,
        )
        return Classification(encoder, self.num_classes, dropout=self.dropout, label_smoothing=self.label_smoothing)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=SlowFastConfig(
            stem_width=16, depths=(1, 1, 1), speed_ratio=4, narrower=4, dropout=0.0, num_classes=8
        ),
        optim=Optim(lr=3e-3),
        train=Loop(steps=100),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def r50_4x16_k400() -> Run:
    """ResNet-50, 4 slow and 32 fast frames, on Kinetics-400 from scratch: 34.5M parameters."""
    return Run(
        data=Data(
            clip=Clip(num_frames=32, stride=2, size=224, short_side=(256, 340)),
            augment=Augment(),
            batch_size=1024,
            num_workers=10,
        ),
        objective=SlowFastConfig(),
        optim=Optim(name="sgd", lr=1.6, weight_decay=1e-4, warmup=34 / 256),
        train=Loop(epochs=256, precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=3),),
    )


def r50_8x8_k400() -> Run:
    """ResNet-50, 8 slow and 32 fast frames: 34.6M parameters."""
    run = r50_4x16_k400()
    return replace(run, objective=replace(run.objective, speed_ratio=4, fusion_frames=7))


def r101_8x8_k400() -> Run:
    """ResNet-101, 8 slow and 32 fast frames: 53.8M parameters."""
    run = r50_8x8_k400()
    return replace(run, objective=replace(run.objective, depths=DEPTHS[101], with_time=(3, 4, 6, 3)))


def r101_16x8_k400() -> Run:
    """ResNet-101, 16 slow and 64 fast frames, without the nonlocal blocks of the paper's best."""
    run = r101_8x8_k400()
    objective = replace(run.objective, fusion_frames=5)
    return replace(
        run, data=replace(run.data, clip=replace(run.data.clip, num_frames=64, stride=2)), objective=objective
    )
