"""UniFormer: convolution and attention as relations between places, local ones at first, global ones at last.

While places are many, each mixes with its 5 x 5 x 5 neighbours (a depthwise convolution between linear maps); in the
last two stages it attends to all. Positions come from depthwise convolutions. Li et al., "UniFormer: Unified
Transformer for Efficient Spatiotemporal Representation Learning", ICLR 2022.

    filmstrip train recognition.uniformer:small_16x4_k400 --data.path PATH

``filmstrip.weights.inflate`` makes a start out of a 2D UniFormer's weights, which the published ones were. Where we
deviate: the RandAugment operations are applied to a whole clip, after cropping; learning rates are the published ones
for the published batch.

The paper reports, Kinetics-400 (top-1, 4 clips): S 16 x 4 80.8, B 16 x 4 82.0, B 32 x 4 82.9; Something-Something V2
(1 clip x 3 crops) B 32 71.2.

Measured here (``python claims/uniformer_stages.py``; moving textures, chance 12.5): ``tiny`` 93.3, with one local
stage 74.5, with none 73.0, with four 97.8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from filmstrip.bounds import Count, NotEmpty, Share, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.uniformer import UniFormer
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim


@dataclass(frozen=True, kw_only=True)
class UniFormerConfig(ClassificationConfig):
    """A UniFormer with a linear classifier on its mean token; the defaults are UniFormer-S."""

    widths: Annotated[tuple[Count, ...], NotEmpty] = (64, 128, 320, 512)
    """Of the stages."""
    depths: Annotated[tuple[Count, ...], NotEmpty] = (3, 4, 8, 3)
    head_dim: Count = 64
    local_stages: Count = 2
    """How many stages, from the first on, mix neighbours; the others attend to all places."""
    drop_path: ShareBelowOne = 0.1
    label_smoothing: Share = 0.1

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        encoder = UniFormer(
            widths=self.widths,
            depths=self.depths,
            head_dim=self.head_dim,
            local_stages=self.local_stages,
            drop_path=self.drop_path,
        )
        return Classification(encoder, self.num_classes, label_smoothing=self.label_smoothing)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=UniFormerConfig(
            widths=(16, 32, 48, 64), depths=(1, 1, 1, 1), head_dim=16, drop_path=0.0, num_classes=8
        ),
        optim=Optim(lr=2e-3),
        train=Loop(steps=100),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(network: UniFormerConfig, *, frames: int, lr: float, batch: int) -> Run:
    """Kinetics-400 for 110 epochs."""
    return Run(
        data=Data(
            clip=Clip(num_frames=frames, stride=4, crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(rand_ops=4, rand_magnitude=7.0, mixup=0.8, cutmix=1.0, erase=0.25),
            batch_size=batch,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=network,
        optim=Optim(lr=lr, weight_decay=0.05, warmup=10 / 110, final=1e-6 / lr),
        train=Loop(epochs=110, precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=4, num_crops=1),),
    )


SMALL = UniFormerConfig()
BASE = UniFormerConfig(depths=(5, 8, 20, 7), drop_path=0.3)


def small_16x4_k400() -> Run:
    """UniFormer-S, 16 frames 4 apart, on Kinetics-400: 21.4M parameters, 41.8 G multiply-adds."""
    return _k400(SMALL, frames=16, lr=1e-4, batch=32)


def base_16x4_k400() -> Run:
    """UniFormer-B, 16 frames 4 apart: 49.8M parameters, 96.7 G multiply-adds."""
    return _k400(BASE, frames=16, lr=1.25e-4, batch=40)


def base_32x4_k400() -> Run:
    """UniFormer-B, 32 frames 4 apart: 49.8M parameters, 259 G multiply-adds."""
    return _k400(BASE, frames=32, lr=1.25e-4, batch=40)


def base_32_ssv2() -> Run:
    """UniFormer-B on Something-Something V2, one frame from each of 32 segments; published from Kinetics weights."""
    run = _k400(replace(BASE, drop_path=0.5, num_classes=174), frames=32, lr=2e-4, batch=32)
    clip = replace(run.data.clip, sampling="segments")
    return replace(
        run,
        data=replace(run.data, clip=clip, augment=replace(run.data.augment, mirror=0.0)),
        optim=replace(run.optim, warmup=5 / 50),
        train=replace(run.train, epochs=50),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )
