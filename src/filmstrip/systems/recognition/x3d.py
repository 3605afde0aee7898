"""X3D: a tiny image network, expanded in frames, resolution, width and depth only where that pays.

Channel-wise 3 x 3 x 3 convolutions mix space and time, 1 x 1 ones mix channels, which is why it needs a tenth of the
operations of its peers. Feichtenhofer, "X3D: Expanding Architectures for Efficient Video
Recognition", CVPR 2020.

    filmstrip train recognition.x3d:m_k400 --data.path PATH

The multiply-adds below are for the sizes it trains with. The networks are tested with larger crops (182, 182, 256
and 356 pixels), in which S, M and L need 2.7, 6.2 and 24.8 G. The paper counts 3.76M parameters for XS, S and M
and 6.08M for L; the released networks, and ours, have 3.79M and 6.15M. Where we deviate: the warm-up starts at zero.

There are two published networks, which differ in one norm: the SlowFast code base's (``--objective.shortcut-norm``)
normalises the first stage's shortcut, PyTorchVideo's does not. Each reads its own files, and refuses the other's.

The released weights have, on Kinetics-400 (top-1, 30 views): XS 69.5, S 73.5, M 76.2, L 77.5.

Measured here (``python claims/x3d_cost.py``; moving textures, chance 12.5): a small X3D 50.5 in 500 steps, a SlowFast
of four times the operations 99.0 in 250.
"""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.bounds import Count, Rate, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.x3d import X3D
from filmstrip.objectives.classification import ClassificationConfig
from filmstrip.objectives.hidden_head import HiddenClassification
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim


@dataclass(frozen=True, kw_only=True)
class X3DConfig(ClassificationConfig):
    """An X3D network; the defaults are those of XS, S and M, which differ in their clips."""

    width: Count = 24
    """Channels of the first stage."""
    deeper: Rate = 2.2
    """Factor on 1, 2, 5 and 3 blocks."""
    bottleneck: Rate = 2.25
    """How much wider a block is inside."""
    shortcut_norm: bool = False
    """Normalise every convolved shortcut, as the SlowFast code base does; PyTorchVideo's first stage has none."""
    hidden: Count = 2048
    """Width of the layer between the pooled features and the classes."""
    dropout: ShareBelowOne = 0.5
    """Before the head."""

    def build(self) -> HiddenClassification:
        """Build the network with fresh weights."""
        encoder = X3D(
            width=self.width, deeper=self.deeper, bottleneck=self.bottleneck, shortcut_norm=self.shortcut_norm
        )
        return HiddenClassification(
            encoder,
            self.num_classes,
            hidden=(self.hidden,),
            bias=False,
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
        objective=X3DConfig(width=8, deeper=1.0, hidden=64, dropout=0.0, num_classes=8),
        optim=Optim(lr=3e-3),
        train=Loop(steps=100),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(*, num_frames: int, stride: int, size: int, short_side: tuple[int, int], deeper: float = 2.2) -> Run:
    return Run(
        data=Data(
            clip=Clip(num_frames=num_frames, stride=stride, size=size, short_side=short_side),
            augment=Augment(),
            batch_size=1024,
            num_workers=10,
        ),
        objective=X3DConfig(deeper=deeper),
        optim=Optim(name="sgd", lr=1.6, weight_decay=5e-5, warmup=35 / 256),
        train=Loop(epochs=256, precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=3),),
    )


def xs_k400() -> Run:
    """4 frames, 12 apart, of 160 pixels: 3.8M parameters, 0.6 G multiply-adds."""
    return _k400(num_frames=4, stride=12, size=160, short_side=(182, 228))


def s_k400() -> Run:
    """13 frames, 6 apart, of 160 pixels: 2.0 G multiply-adds."""
    return _k400(num_frames=13, stride=6, size=160, short_side=(182, 228))


def m_k400() -> Run:
    """16 frames, 5 apart, of 224 pixels: 4.7 G multiply-adds."""
    return _k400(num_frames=16, stride=5, size=224, short_side=(256, 320))


def l_k400() -> Run:
    """16 frames, 5 apart, of 312 pixels, over twice as deep: 6.2M parameters, 18.4 G multiply-adds."""
    return _k400(num_frames=16, stride=5, size=312, short_side=(356, 446), deeper=5.0)
