"""Early fusion: a clip's frames are stacked as channels, and the first convolution of a 2D network sees them all.

Its filters are as long as the clip, C' x C x T x K x K, and nothing is left of time after them. Karpathy et al.,
"Large-scale Video Classification with Convolutional Neural Networks", CVPR 2014; the toy network is that of Justin
Johnson's lecture on video, whose table prints its first convolution as 3 -> 12 where it is 60 -> 12.

    filmstrip show recognition.early_fusion
    filmstrip train recognition.early_fusion --data.path PATH

Where we deviate: the first layer is written as a convolution over space and time whose kernel is as long as the
clip, which is the same sum; batch normalisation and ReLU follow each convolution of the toy network; padding and
schedule as in ``recognition.late_fusion``.

The paper reports, on Sports-1M (487 classes, top-5 by video), 76.8 for early fusion and 77.7 for a single frame.

Measured here (``filmstrip claims fusion_timing``, 100 steps, mean of four seeds; chance 50): trained on early events,
``tiny`` names 100.0 of those and 45.5 of later ones.
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

SPORTS1M = (
    ConvLayer(width=96, kernel=(10, 11, 11), stride=(1, 3, 3), valid_time=True, norm="response", pool=(1, 2, 2)),
    ConvLayer(width=256, kernel=(1, 5, 5), norm="response", pool=(1, 2, 2)),
    ConvLayer(width=384, kernel=(1, 3, 3), norm="none"),
    ConvLayer(width=384, kernel=(1, 3, 3), norm="none"),
    ConvLayer(width=256, kernel=(1, 3, 3), norm="none", pool=(1, 2, 2)),
)
"""The paper's network below its fully connected layers. The first kernel is as long as the clip."""


def tiny() -> Run:
    """The lecture's toy network, on eight motions; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=20, stride=1, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=PlainCNNConfig(
            layers=(
                ConvLayer(width=12, kernel=(20, 3, 3), valid_time=True, pool=(1, 4, 4)),
                ConvLayer(width=24, kernel=(1, 3, 3)),
            ),
            hidden=(),
            num_frames=20,
            size=64,
            num_classes=8,
        ),
        optim=AdamW(lr=1e-2),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def sports1m() -> Run:
    """The paper's network on Sports-1M: ten frames in a row, 11 x 11 x 3 x 10 filters."""
    return Run(
        data=Data(clip=Clip(num_frames=10, stride=1, size=170, short_side=(200, 200)), batch_size=32, num_workers=10),
        objective=PlainCNNConfig(
            layers=SPORTS1M, hidden=(4096, 4096), num_frames=10, size=170, dropout=0.5, num_classes=487
        ),
        optim=SGD(lr=1e-3, weight_decay=5e-4),
        train=Loop(length=Epochs(5), clip_grad=None),
        evals=(MultiView(num_clips=20, num_crops=1),),
    )
