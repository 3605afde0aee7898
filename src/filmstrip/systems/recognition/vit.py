"""Joint space-time vision transformer: every tubelet of a clip attends to every other, in every layer.

The network that VideoMAE pretrains (:mod:`filmstrip.systems.pretraining.videomae`) and that is fine-tuned here:
tubelets of 2 x 16 x 16 pixels, fixed sine-cosine positions, tokens pooled by their mean, one linear layer.
Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training",
NeurIPS 2022; network after Dosovitskiy et al. 2021 and Arnab et al. 2021.

    filmstrip train recognition.vit:base_k400 --init hf:MCG-NJU/videomae-base --data.path PATH

Where we deviate: linear layers start Glorot-uniform, as in pretraining (published: truncated normal, 0.02), the head
with a standard deviation of 0.01; Adam's learning rates are the published ones for batch 256 times two, because
nothing here rescales them; the RandAugment operations are applied to a whole clip, after cropping.

The giant network (patches of 14 pixels) is VideoMAE V2's: Wang et al., CVPR 2023. It is fine-tuned on Kinetics-710
first, then for three epochs on Kinetics-400. Its rates here are those of its code, which divides by 256 videos.

The paper reports (16 frames, top-1): Kinetics-400 S 79.0, B 81.5, L 85.2, H 86.6 after 1600 epochs of pretraining,
68.8 for B from scratch; Something-Something V2 S 66.8, B 70.8, L 74.3 after 2400, 32.6 for B from scratch. Of
VideoMAE V2, g: 87.2 and 77.0, with Kinetics-710 88.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class ViTConfig(ViTArchitecture, ClassificationConfig):
    """A video ViT with a linear classifier on its mean token."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(ViT(self, final_norm=False), self, norm=True)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=ViTConfig(
            width=96,
            depth=4,
            num_heads=3,
            num_frames=8,
            size=64,
            patch_size=(2, 8, 8),
            label_smoothing=0.1,
            num_classes=8,
        ),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


# What the paper fine-tunes with, whatever the size and the data set: (9, 0.5) RandAugment in the paper's table, four
# operations of magnitude 7 in its code, which is what its results were made with.
_AUGMENT = Augment(rand_ops=4, rand_magnitude=7.0, mixup=0.8, cutmix=1.0, erase=0.25)
_BATCH = 512


def _k400(network: ViTConfig, *, epochs: int, base_lr: float) -> Run:
    """Kinetics-400: dense sampling of 16 x 4 frames, 5 clips x 3 crops in testing."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=4, crop="random_resized", area=(0.08, 1.0)),
            augment=_AUGMENT,
            batch_size=_BATCH,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(
            lr=base_lr * _BATCH / 256, layer_decay=0.75, schedule=Cosine(warmup=5 / epochs, final=1e-6 / base_lr)
        ),
        train=Loop(length=Epochs(epochs), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=5, num_crops=3),),
    )


def _ssv2(network: ViTConfig, *, epochs: int, base_lr: float) -> Run:
    """Something-Something V2: one frame from each of 16 segments, no mirroring, 2 clips x 3 crops in testing."""
    run = _k400(replace(network, num_classes=174), epochs=epochs, base_lr=base_lr)
    clip = replace(run.data.clip, sampling="segments")
    data = replace(run.data, clip=clip, augment=replace(_AUGMENT, mirror=0.0))
    return replace(run, data=data, evals=(MultiView(num_clips=2, num_crops=3),))


SMALL = ViTConfig(
    width=384,
    depth=12,
    num_heads=6,
    num_frames=16,
    size=224,
    patch_size=(2, 16, 16),
    drop_path=0.1,
    label_smoothing=0.1,
    num_classes=400,
)
BASE = replace(SMALL, width=768, num_heads=12)
LARGE = replace(SMALL, width=1024, depth=24, num_heads=16, drop_path=0.2)
HUGE = replace(SMALL, width=1280, depth=32, num_heads=16, drop_path=0.2, dropout=0.5)
GIANT = replace(SMALL, width=1408, depth=40, num_heads=16, mlp_ratio=48 / 11, patch_size=(2, 14, 14), drop_path=0.2)


def small_k400() -> Run:
    """ViT-S on Kinetics-400: 22M parameters, 57 G multiply-adds."""
    return _k400(SMALL, epochs=150, base_lr=5e-4)


def base_k400() -> Run:
    """ViT-B on Kinetics-400: 87M parameters, 180 G multiply-adds."""
    return _k400(BASE, epochs=75, base_lr=5e-4)


def large_k400() -> Run:
    """ViT-L on Kinetics-400: 305M parameters, 597 G multiply-adds."""
    return _k400(LARGE, epochs=35, base_lr=2e-3)


def huge_k400() -> Run:
    """ViT-H on Kinetics-400: 633M parameters, 1192 G multiply-adds."""
    return _k400(HUGE, epochs=50, base_lr=1e-3)


def small_ssv2() -> Run:
    """ViT-S on Something-Something V2."""
    run = _ssv2(SMALL, epochs=40, base_lr=1e-3)
    return replace(run, optim=replace(run.optim, layer_decay=0.7))


def base_ssv2() -> Run:
    """ViT-B on Something-Something V2."""
    return _ssv2(BASE, epochs=30, base_lr=5e-4)


def large_ssv2() -> Run:
    """ViT-L on Something-Something V2."""
    return _ssv2(LARGE, epochs=30, base_lr=5e-4)


def _giant(
    run: Run,
    *,
    epochs: int,
    videos: int,
    base_lr: float,
    drop_path: float,
    warmup: int = 5,
    weight_decay: float = 0.1,
    clip_grad: float | None = None,
) -> Run:
    """The rates of ViT-g: so many videos a step, of two clips each."""
    optim = replace(
        run.optim,
        lr=base_lr * videos / 256,
        weight_decay=weight_decay,
        layer_decay=0.9,
        schedule=Cosine(warmup=warmup / epochs, final=1e-6 / base_lr),
    )
    return replace(
        run,
        data=replace(run.data, batch_size=2 * videos),
        objective=replace(run.objective, drop_path=drop_path),
        optim=optim,
        train=replace(run.train, length=Epochs(epochs), clip_grad=clip_grad),
    )


def giant_k400() -> Run:
    """ViT-g on Kinetics-400: 1013M parameters, 2544 G multiply-adds."""
    return _giant(_k400(GIANT, epochs=30, base_lr=1e-3), epochs=30, videos=192, base_lr=1e-3, drop_path=0.2)


def giant_k710() -> Run:
    """ViT-g on Kinetics-710, between pretraining and Kinetics-400."""
    run = _k400(replace(GIANT, num_classes=710), epochs=35, base_lr=1e-3)
    return _giant(run, epochs=35, videos=96, base_lr=1e-3, drop_path=0.3, clip_grad=5.0)


def giant_k400_from_k710() -> Run:
    """ViT-g on Kinetics-400 after Kinetics-710 (``--init``): three epochs at a hundredth of the rate."""
    return _giant(giant_k400(), epochs=3, videos=96, base_lr=1e-5, drop_path=0.25, warmup=1)


def giant_ssv2() -> Run:
    """ViT-g on Something-Something V2."""
    run = _ssv2(GIANT, epochs=20, base_lr=3e-4)
    return _giant(run, epochs=20, videos=96, base_lr=3e-4, drop_path=0.25, weight_decay=0.05)
