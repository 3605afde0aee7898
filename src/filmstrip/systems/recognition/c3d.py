"""C3D: eight 3 x 3 x 3 convolutions, five poolings and three fully connected layers, the VGG of video.

Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015.

    filmstrip show recognition.c3d:sports1m
    filmstrip train recognition.c3d --data.path PATH

The lecture's table gives giga multiply-adds under "MFLOPs": its convolutions are exact, 38.497 G together; its fully
connected layers are 27 times too large (0.038 G, not 1.01). Its last pooling leaves 512 x 1 x 3 x 3 (``sports1m``);
the released network pads it to 512 x 1 x 4 x 4, so that its first fully connected layer has 8,192 inputs
(``sports1m_released``, ``ucf101``).

Where we deviate: RGB is normalised by ImageNet's mean and standard deviation instead of a mean clip; a warm-up and a
cosine replace the halving of the learning rate every 150,000 steps.

The paper reports, on Sports-1M (top-5 by video), 84.4, as the lecture quotes it.

Measured here (``filmstrip claims fusion_timing``, 100 steps, mean of four seeds; chance 50): trained on early events,
a small one names 100.0 of those and 100.0 of later ones where time is pooled away, as in the paper's network; where
its fully connected layers see several moments, which ties it to a timing, 20.2.
"""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.plain_cnn import C3D, C3D_RELEASED, ConvLayer
from filmstrip.objectives.plain_cnn import PlainCNNConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import SGD, AdamW


def tiny() -> Run:
    """Narrow, with batch normalisation, on eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    pools = ((1, 4, 4), (2, 2, 2), None, (2, 2, 2))
    widths = (8, 16, 32, 32)
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=PlainCNNConfig(
            layers=tuple(ConvLayer(width=width, pool=pool) for width, pool in zip(widths, pools)),
            hidden=(64, 64),
            num_frames=8,
            size=64,
            num_classes=8,
        ),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def sports1m() -> Run:
    """The table's network on Sports-1M, from scratch: 65M parameters, 38.5 G multiply-adds."""
    return Run(
        data=Data(clip=Clip(num_frames=16, stride=1, size=112, short_side=(128, 128)), batch_size=30, num_workers=10),
        objective=PlainCNNConfig(
            layers=C3D, hidden=(4096, 4096), num_frames=16, size=112, dropout=0.5, num_classes=487
        ),
        optim=SGD(lr=3e-3, weight_decay=5e-4),
        train=Loop(length=Steps(1_900_000), clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=1),),
    )


def sports1m_released() -> Run:
    """The same with the released network's last pooling: 80M parameters."""
    run = sports1m()
    return replace(run, objective=replace(run.objective, layers=C3D_RELEASED))


def ucf101() -> Run:
    """The released network fine-tuned on UCF-101: 78.4M parameters."""
    run = sports1m_released()
    return replace(
        run,
        objective=replace(run.objective, num_classes=101),
        optim=replace(run.optim, lr=1e-3),
        train=replace(run.train, length=Steps(60_000)),
    )
