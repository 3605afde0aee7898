"""UniFormerV2: an image ViT (CLIP's) that is armed for video, its own weights and its view of a frame kept.

Before and after a block's attention within frames, a place mixes with itself in the frames beside (local temporal
relations, zero at first); beside the last blocks a video token looks at all places of all frames. Li et al.,
"UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video UniFormer", ICCV 2023.

    filmstrip train recognition.uniformer_v2:b16_16_ssv2 --data.path PATH

As in the published configurations, the Kinetics presets leave the local temporal relations out, where scenes give
actions away, and look four times; those for Something-Something have them, and look 8 or 16 times. Where we deviate:
one learning rate schedule from CLIP's weights (published L/14 passes through Kinetics-710); whole-clip RandAugment.

The public results are, Kinetics-400 (top-1, 8 frames, 4 clips x 3 crops): B/16 84.4, with Kinetics-710 B/16 85.6 and
L/14 88.8; Something-Something V2 (16 frames, 3 crops): B/16 69.5, L/14 72.1.

Measured here (``python claims/uniformer_v2_arming.py``, on one thread and on two): arming changes no frame's class
token at first; after as many steps, an image network's average over frames names 25.6 and 27.8% of four motions, with
local blocks 99.8 and 100.0, with global ones 25.9 and 74.5, with both 100.0 and 49.4 (chance is 25).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from filmstrip.bounds import Count, CountOrZero, Rate, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.uniformer_v2 import UniFormerV2
from filmstrip.nn.initialisation import LinearStart
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim


@dataclass(frozen=True, kw_only=True)
class UniFormerV2Config(ClassificationConfig):
    """A UniFormerV2 with a normalised linear classifier; the defaults are B/16 with everything."""

    width: Count = 768
    depth: Count = 12
    num_heads: Count = 12
    patch_size: Count = 16
    """Pixels, height and width."""
    size: Count = 224
    global_layers: tuple[CountOrZero, ...] = (4, 5, 6, 7, 8, 9, 10, 11)
    """After which blocks the video token looks."""
    reduction: Rate | None = 1.5
    """How much narrower local temporal relations are inside; none: there are none."""
    halve_time: bool = True
    """Embed every second frame, together with its neighbours."""
    start_as_image: bool = True
    """What is added to the image network starts at zero: right where that was pretrained, slow where it was not."""
    linear_start: LinearStart = "normal"
    """How linear layers start; ``glorot`` suits a narrow network that starts from nothing."""
    drop_path: ShareBelowOne = 0.2
    global_drop_path: ShareBelowOne = 0.4
    dropout: ShareBelowOne = 0.5
    """Before the head, and in the global blocks."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        encoder = UniFormerV2(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            patch_size=self.patch_size,
            size=self.size,
            global_layers=self.global_layers,
            reduction=self.reduction,
            halve_time=self.halve_time,
            start_as_image=self.start_as_image,
            linear_start=self.linear_start,
            global_dropout=self.dropout,
            drop_path=self.drop_path,
            global_drop_path=self.global_drop_path,
        )
        return Classification(
            encoder,
            self.num_classes,
            norm=True,
            norm_eps=1e-5,
            dropout=self.dropout,
            label_smoothing=self.label_smoothing,
        )


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=UniFormerV2Config(
            width=64,
            depth=3,
            num_heads=2,
            patch_size=8,
            size=64,
            global_layers=(1, 2),
            start_as_image=False,
            linear_start="glorot",
            drop_path=0.0,
            global_drop_path=0.0,
            dropout=0.0,
            num_classes=8,
        ),
        optim=Optim(lr=1e-3),
        train=Loop(steps=100),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


B16 = UniFormerV2Config()
L14 = replace(B16, width=1024, depth=24, num_heads=16, patch_size=14, global_layers=tuple(range(8, 24)))


def _k400(network: UniFormerV2Config, *, lr: float) -> Run:
    """Kinetics-400 for 55 epochs from CLIP's weights: 8 frames, one from each of 8 segments."""
    plain = replace(network, reduction=None, halve_time=False, drop_path=0.0, global_drop_path=0.0)
    last = tuple(range(network.depth - 4, network.depth))
    return Run(
        data=Data(
            clip=Clip(num_frames=8, sampling="segments", crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(rand_ops=4, rand_magnitude=7.0),
            batch_size=256,
            num_workers=10,
        ),
        objective=replace(plain, global_layers=last),
        optim=Optim(lr=lr, weight_decay=0.05, warmup=5 / 55, final=1e-6 / lr),
        train=Loop(epochs=55, precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=4, num_crops=3),),
    )


def _ssv2(network: UniFormerV2Config, *, lr: float) -> Run:
    """Something-Something V2 for 22 epochs from CLIP's weights: 16 frames."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, sampling="segments", crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(mirror=0.0, rand_ops=4, rand_magnitude=7.0),
            batch_size=128,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=replace(network, num_classes=174),
        optim=Optim(lr=lr, weight_decay=0.05, warmup=5 / 22, final=1e-6 / lr),
        train=Loop(epochs=22, precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )


def b16_8_k400() -> Run:
    """B/16 on Kinetics-400, 8 frames: 114.6M parameters, 148 G multiply-adds."""
    return _k400(B16, lr=1e-5)


def l14_8_k400() -> Run:
    """L/14 on Kinetics-400, 8 frames: 354.1M parameters, 666 G multiply-adds."""
    return _k400(L14, lr=1e-5)


def b16_16_ssv2() -> Run:
    """B/16 on Something-Something V2, 16 frames, half of them embedded: 163.0M parameters, 187 G multiply-adds."""
    return _ssv2(B16, lr=4e-5)


def l14_16_ssv2() -> Run:
    """L/14 on Something-Something V2, 16 frames, half of them embedded: 574.0M parameters, 858 G multiply-adds."""
    return _ssv2(L14, lr=2e-5)
