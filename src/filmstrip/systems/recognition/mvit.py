"""Multiscale vision transformers, first and improved: attention on pooled queries, keys and values, by stages.

Where positions are many, channels are few, and stage by stage they change roles; queries are pooled where a stage
begins, keys and values everywhere, to the same small grid. Fan et al., "Multiscale Vision Transformers", ICCV 2021
(MViT, the presets with ``v1``); Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and
Detection", CVPR 2022: decomposed relative positions, pooled queries added to what they attend to, channels doubled in
attention.

    filmstrip train recognition.mvit:v2_small_k400 --data.path PATH

Where we deviate: biases of linear layers and norms start at zero (published code: 0.02); the batch and its learning
rate are the public configurations'; the RandAugment operations are applied to a whole clip, after cropping; MViTv2-L
starts from scratch here, the published one from ImageNet-21K. Of its 217.6M parameters 213.4M are here: the public
table has 213.1M for the same network on Something-Something, 0.3M less for its classes.

The papers report, Kinetics-400 (top-1, one crop of 5 clips): MViT-B 16 x 4 78.4, 32 x 3 80.2; MViTv2-S 81.0, B 82.9,
L (3 crops) 86.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.mvit import MViT, MViTArchitecture
from filmstrip.models.resnet3d import PIXEL_MEAN, PIXEL_STD
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class MViTConfig(MViTArchitecture, ClassificationConfig):
    """A multiscale transformer with a linear classifier on its class token."""

    improved: bool = True
    """Whether the network is MViTv2."""
    imagenet_pixels: bool = False
    """Whether pixels are normalised by ImageNet's mean and standard deviation; otherwise by 0.45 and 0.225."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        encoder = MViT(
            self,
            improved=self.improved,
            mean=IMAGENET_MEAN if self.imagenet_pixels else PIXEL_MEAN,
            std=IMAGENET_STD if self.imagenet_pixels else PIXEL_STD,
        )
        return Classification(encoder, self)


def tiny() -> Run:
    """MViTv2 on eight motions at 48 x 48 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=48, short_side=(48, 48)),
            batch_size=16,
        ),
        objective=MViTConfig(
            width=32,
            depth=4,
            stages=(1, 3),
            kv_stride=(1, 4, 4),
            num_frames=8,
            size=48,
            summary="mean",
            linear_init="glorot",
            label_smoothing=0.1,
            num_classes=8,
        ),
        optim=AdamW(lr=5e-4),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def tiny_v1() -> Run:
    """The same with the first MViT: absolute positions, channels that double at the end of a stage."""
    run = tiny()
    return replace(run, objective=replace(run.objective, improved=False))


def _k400(network: MViTConfig, *, stride: int, clips: int = 5, crops: int = 1) -> Run:
    """Kinetics-400 from scratch, for 200 epochs."""
    return Run(
        data=Data(
            clip=Clip(
                num_frames=network.num_frames,
                stride=stride,
                size=network.size,
                crop="random_resized",
                area=(0.08, 1.0),
            ),
            augment=Augment(rand_ops=4, rand_magnitude=7.0, mixup=0.8, cutmix=1.0, erase=0.25),
            batch_size=256,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(lr=1e-4, weight_decay=0.05, schedule=Cosine(warmup=30 / 200, final=0.01)),
        train=Loop(length=Epochs(200), precision="bfloat16"),
        evals=(MultiView(num_clips=clips, num_crops=crops),),
    )


V2_SMALL = MViTConfig(
    width=96,
    depth=16,
    stages=(1, 3, 14),
    kv_stride=(1, 8, 8),
    num_frames=16,
    size=224,
    drop_path=0.2,
    dropout=0.5,
    label_smoothing=0.1,
    num_classes=400,
)
V1_BASE = replace(V2_SMALL, improved=False)
V2_BASE = replace(V2_SMALL, depth=24, stages=(2, 5, 21), num_frames=32, drop_path=0.3)
V2_LARGE = replace(
    V2_SMALL,
    width=144,
    depth=48,
    num_heads=2,
    stages=(2, 8, 44),
    num_frames=40,
    size=312,
    drop_path=0.75,
    imagenet_pixels=True,
)


def v1_base_16x4_k400() -> Run:
    """MViT-B, 16 frames 4 apart, on Kinetics-400: 36.6M parameters, 70.5 G multiply-adds."""
    return _k400(V1_BASE, stride=4)


def v1_base_32x3_k400() -> Run:
    """MViT-B, 32 frames 3 apart: 36.6M parameters, 170 G multiply-adds."""
    return _k400(replace(V1_BASE, num_frames=32), stride=3)


def v1_base24_32x3_k400() -> Run:
    """MViT-B of 24 blocks, 32 frames 3 apart: 52.9M parameters, 236 G multiply-adds."""
    return _k400(replace(V2_BASE, improved=False), stride=3)


def v2_small_k400() -> Run:
    """MViTv2-S, 16 frames 4 apart: 34.5M parameters, 64 G multiply-adds."""
    return _k400(V2_SMALL, stride=4)


def v2_base_k400() -> Run:
    """MViTv2-B, 32 frames 3 apart: 51.2M parameters, 225 G multiply-adds."""
    return _k400(V2_BASE, stride=3)


def v2_large_k400() -> Run:
    """MViTv2-L, 40 frames 3 apart of 312 x 312 pixels: 217.6M parameters, 2828 G multiply-adds."""
    return _k400(V2_LARGE, stride=3, crops=3)
