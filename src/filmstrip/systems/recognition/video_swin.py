"""Video Swin: a transformer that attends within 3D windows, which shift by half their size from layer to layer.

Cost grows with the number of positions, not with its square; four stages halve height and width and double the
channels. Liu et al., "Video Swin Transformer", CVPR 2022.

    filmstrip train recognition.video_swin:tiny_k400 --data.path PATH

The network is :mod:`filmstrip.models.video_swin`; its
``inflate_swin`` makes a start out of a 2D Swin's weights. Where we deviate: one
learning rate for all (published: the pretrained network learns at a tenth of the head's); padding that fills the last
windows of a grid that windows do not tile is not attended to.

The paper reports (32 frames, 4 clips x 3 crops, pretrained on ImageNet): Kinetics-400 T 78.8, S 80.6, B 80.6, B from
ImageNet-21K 82.7, L 83.1; Something-Something V2 B 69.6 (1 clip x 3 crops, pretrained on Kinetics-400).
Counted here (``filmstrip claims swin_shift``): attention is 17.9 of Swin-T's 87.8 G multiply-adds, and would be 1135
with one window for all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.video_swin import VideoSwin, VideoSwinArchitecture
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class VideoSwinConfig(VideoSwinArchitecture, ClassificationConfig):
    """A video Swin transformer with a linear classifier on its mean token."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(VideoSwin(self), self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=VideoSwinConfig(
            width=32,
            depths=(2, 2),
            num_heads=(2, 4),
            window=(2, 4, 4),
            patch_size=(2, 4, 4),
            linear_init="glorot",
            num_classes=8,
        ),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(network: VideoSwinConfig, *, lr: float = 1e-3, weight_decay: float = 0.02) -> Run:
    """Kinetics-400 for 30 epochs: 32 frames 2 apart, 4 clips x 3 crops in testing."""
    return Run(
        data=Data(
            clip=Clip(num_frames=32, stride=2, crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(),
            batch_size=64,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(lr=lr, weight_decay=weight_decay, schedule=Cosine(warmup=2.5 / 30)),
        train=Loop(length=Epochs(30), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=4, num_crops=3),),
    )


TINY = VideoSwinConfig(
    width=96,
    depths=(2, 2, 6, 2),
    num_heads=(3, 6, 12, 24),
    window=(8, 7, 7),
    patch_size=(2, 4, 4),
    drop_path=0.1,
    dropout=0.5,
    num_classes=400,
)
SMALL = replace(TINY, depths=(2, 2, 18, 2))
BASE = replace(SMALL, width=128, num_heads=(4, 8, 16, 32), drop_path=0.2)
LARGE = replace(SMALL, width=192, num_heads=(6, 12, 24, 48), drop_path=0.2)


def tiny_k400() -> Run:
    """Swin-T on Kinetics-400: 28.2M parameters, 87.9 G multiply-adds."""
    return _k400(TINY)


def small_k400() -> Run:
    """Swin-S: 49.8M parameters, 165.9 G multiply-adds."""
    return _k400(SMALL)


def base_k400() -> Run:
    """Swin-B: 88.1M parameters, 281.6 G multiply-adds."""
    return _k400(BASE, lr=3e-4, weight_decay=0.05)


def large_k400() -> Run:
    """Swin-L: 197M parameters, 604 G multiply-adds."""
    return _k400(LARGE, lr=3e-4, weight_decay=0.05)


def base_ssv2() -> Run:
    """Swin-B on Something-Something V2, windows of 16 x 7 x 7: 88.8M parameters, 320.6 G multiply-adds."""
    network = replace(BASE, window=(16, 7, 7), drop_path=0.4, num_classes=174, label_smoothing=0.1)
    run = _k400(network, lr=3e-4, weight_decay=0.05)
    clip = replace(run.data.clip, sampling="segments")
    augment = Augment(mirror=0.0, rand_ops=4, rand_magnitude=7.0, erase=0.25)
    return replace(
        run,
        data=replace(run.data, clip=clip, augment=augment),
        optim=replace(run.optim, schedule=replace(run.optim.schedule, warmup=2.5 / 60)),
        train=replace(run.train, length=Epochs(60)),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )
