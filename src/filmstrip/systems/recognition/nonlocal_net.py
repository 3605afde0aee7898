"""Nonlocal network: a 3D residual network in which some blocks are followed by attention over all of space and time.

A convolution sees its neighbourhood; a nonlocal block lets every place gather from every other in one step. Wang et
al., "Non-local Neural Networks", CVPR 2018; :func:`~filmstrip.nn.nonlocal_block.insert_nonlocal` puts a block
into any other 3D network.

    filmstrip train recognition.nonlocal_net --data.path PATH

As published, the last normalisation of a block has its scale start at zero, so that the block starts as the identity.
Where we deviate: the network is the I3D-like ResNet-50 that the authors released later (5 x 7 x 7 stem, 3 x 1 x 1
kernels in every or every other block, frames halved after the first stage), with products divided by the root of
their length as in that release; the paper's formula does not. It trains from scratch here, not from inflated ImageNet
weights (``filmstrip.weights.inflate`` makes those).

Measured here (``python claims/nonlocal_identity.py``): putting two blocks into a trained network changes no logit;
after as many steps again it names 50.6 of unseen motions and 49.7 without them, which is no difference on 320 videos
(chance 12.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from filmstrip.bounds import Count, CountOrZero, NotEmpty, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet3d import DEPTHS, ResNet3D
from filmstrip.nn.nonlocal_block import Pairwise
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim


@dataclass(frozen=True, kw_only=True)
class NonLocalNetConfig(ClassificationConfig):
    """An I3D-like residual network of bottlenecks with nonlocal blocks; the defaults are ResNet-50 with five."""

    stem_width: Count = 64
    depths: Annotated[tuple[Count, ...], NotEmpty] = DEPTHS[50]
    frames: tuple[tuple[Count, ...], ...] = ((3,), (3, 1), (3, 1), (1, 3))
    """Kernels in time of each stage's blocks, in turn."""
    nonlocal_after: tuple[tuple[CountOrZero, ...], ...] = ((), (1, 3), (1, 3, 5), ())
    """The blocks of each stage, from 0, that a nonlocal block follows."""
    pairwise: Pairwise = "embedded_gaussian"
    """How two places are compared."""
    pool_frames: bool = True
    """Halve the frames after the first stage."""
    dropout: ShareBelowOne = 0.5
    """Before the head."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        encoder = ResNet3D(
            stem_width=self.stem_width,
            depths=self.depths,
            frames=self.frames,
            pool_frames=self.pool_frames,
            nonlocal_after=self.nonlocal_after,
            pairwise=self.pairwise,
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
        objective=NonLocalNetConfig(
            stem_width=8,
            depths=(1, 2, 1),
            frames=((3,), (3, 1), (1,)),
            nonlocal_after=((), (0,), (0,)),
            dropout=0.0,
            num_classes=8,
        ),
        optim=Optim(lr=3e-3),
        train=Loop(steps=100),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def r50_k400() -> Run:
    """ResNet-50 with five blocks on Kinetics-400, 32 frames: 35.4M parameters."""
    return Run(
        data=Data(
            clip=Clip(num_frames=32, stride=2, size=224, short_side=(256, 320)),
            augment=Augment(),
            batch_size=64,
            num_workers=10,
        ),
        objective=NonLocalNetConfig(),
        optim=Optim(name="sgd", lr=0.1, weight_decay=1e-4, warmup=34 / 196),
        train=Loop(epochs=196, precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=3),),
    )


def r50_8x8_k400() -> Run:
    """The same on 8 frames, 8 apart: the layout and clips of the released network."""
    run = r50_k400()
    return replace(run, data=replace(run.data, clip=replace(run.data.clip, num_frames=8, stride=8)))
