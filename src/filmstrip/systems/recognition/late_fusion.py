"""Late fusion: every frame goes through a 2D network alone, and only the last layers see them together.

Either all frames' maps in one vector, through fully connected layers, or their mean over space and time. Karpathy et
al., "Large-scale Video Classification with Convolutional Neural Networks", CVPR 2014; the toy networks are those of
Justin Johnson's lecture on video ("Early Fusion vs Late Fusion vs 3D CNN").

    filmstrip show recognition.late_fusion:tiny_pooling
    filmstrip train recognition.late_fusion --data.path PATH

Where we deviate: the toy networks have batch normalisation and ReLU after each convolution, which the lecture does
not draw; the paper does not say how it pads: here zeros keep the size; a warm-up and a cosine over a number of epochs
that is ours replace its schedule.

The paper reports, on Sports-1M (487 classes, top-5 by video), 78.7 for late fusion and 77.7 for a single frame.

Measured here (``filmstrip claims fusion_timing``, 100 steps, mean of four seeds; chance 50): trained on early events,
``tiny`` names 100.0 of those and 50.9 of later ones, ``tiny_pooling`` 47.3 of either.
"""

from __future__ import annotations

from filmstrip.data.config import Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.plain_cnn import ConvLayer
from filmstrip.objectives.plain_cnn import PlainCNNConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW

LECTURE = (
    ConvLayer(width=12, kernel=(1, 3, 3), pool=(1, 4, 4)),
    ConvLayer(width=24, kernel=(1, 3, 3)),
)
"""3 -> 12 -> 24 channels, of 64 x 64 and 16 x 16 positions in each frame."""

ALEXNET = (
    ConvLayer(width=96, kernel=(1, 11, 11), stride=(1, 3, 3), norm="response", pool=(1, 2, 2)),
    ConvLayer(width=256, kernel=(1, 5, 5), norm="response", pool=(1, 2, 2)),
    ConvLayer(width=384, kernel=(1, 3, 3), norm="none"),
    ConvLayer(width=384, kernel=(1, 3, 3), norm="none"),
    ConvLayer(width=256, kernel=(1, 3, 3), norm="none", pool=(1, 2, 2)),
)
"""The paper's single-frame network below its fully connected layers."""


def tiny() -> Run:
    """The lecture's toy network with fully connected layers, on eight motions; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=20, stride=1, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=PlainCNNConfig(layers=LECTURE, hidden=(32,), num_frames=20, size=64, num_classes=8),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def tiny_pooling() -> Run:
    """The toy network of the lecture's table, with global average pooling: 3,200 parameters."""
    run = tiny()
    return Run(
        data=run.data,
        objective=PlainCNNConfig(layers=LECTURE, hidden=(), num_frames=20, size=64, num_classes=8),
        optim=AdamW(lr=1e-2),
        train=run.train,
        evals=run.evals,
    )


def sports1m() -> Run:
    """The paper's network on Sports-1M: two frames, 15 apart, meet in the first fully connected layer."""
    return Run(
        data=Data(clip=Clip(num_frames=2, stride=15, size=170, short_side=(200, 200)), batch_size=32, num_workers=10),
        objective=PlainCNNConfig(
            layers=ALEXNET, hidden=(4096, 4096), num_frames=2, size=170, dropout=0.5, num_classes=487
        ),
        optim=SGD(lr=1e-3, weight_decay=5e-4),
        train=Loop(length=Epochs(5), clip_grad=None),
        evals=(MultiView(num_clips=20, num_crops=1),),
    )
