"""Two-stream network: what things are from a single frame, how they move from a stack of optical flow.

Two convolutional networks alike but for their input, RGB or the 2 (T - 1) directions of the flow between T
frames, whose probabilities are averaged or weighted by a linear SVM. Simonyan & Zisserman, "Two-Stream Convolutional
Networks for Action Recognition in Videos", NeurIPS 2014.

    filmstrip train recognition.two_stream:ucf101 --data.path PATH

It needs OpenCV (the extra ``flow``), which estimates the flow of each clip as it is read, or RAFT's weights
(``--objective.flow raft --objective.flow-weights FILE``). Where we deviate: dense inverse search instead of Brox's
flow; both streams train together, from scratch, and so does the SVM (the paper pretrains the spatial one on ImageNet,
and fits the SVM afterwards); a cosine instead of steps.

The paper reports, on UCF-101: spatial 73.0, temporal 83.7, averaged 86.9, by SVM 88.0.

Measured here (``filmstrip claims two_stream_fusion``, mean of three seeds; four motions in two looks, chance 12.5):
spatial 25.0, temporal 49.5, averaged 62.5, by SVM 95.8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.plain_cnn import ConvLayer, PlainCNN
from filmstrip.objectives.mlp_head import MLPClassification
from filmstrip.objectives.two_stream import StreamsConfig, TwoStream
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import SGD, AdamW

CNN_M = (
    ConvLayer(width=96, kernel=(1, 7, 7), stride=(1, 2, 2), norm="response", pool=(1, 3, 3), pool_stride=(1, 2, 2)),
    ConvLayer(width=256, kernel=(1, 5, 5), stride=(1, 2, 2), norm="response", pool=(1, 3, 3), pool_stride=(1, 2, 2)),
    ConvLayer(width=512, kernel=(1, 3, 3), norm="none"),
    ConvLayer(width=512, kernel=(1, 3, 3), norm="none"),
    ConvLayer(width=512, kernel=(1, 3, 3), norm="none", pool=(1, 3, 3), pool_stride=(1, 2, 2)),
)
"""CNN-M-2048 (Chatfield et al. 2014) below its fully connected layers."""


@dataclass(frozen=True, kw_only=True)
class TwoStreamConfig(StreamsConfig):
    """Two networks of the same layers; the temporal one's first convolution spans all of the flow."""

    layers: tuple[ConvLayer, ...]
    """Convolutions of each network."""
    hidden: tuple[Count, ...]
    """Widths of the fully connected layers before the classes."""
    num_frames: Count
    """Frames of a clip; there is one flow less."""
    size: Count
    """Height and width of a clip, pixels."""
    single_frames: Count = 1
    """Frames of a clip that the spatial stream sees."""

    def build(self) -> TwoStream:
        """Build both networks with fresh weights."""
        first = replace(self.layers[0], kernel=(self.num_frames - 1, *self.layers[0].kernel[1:]), valid_time=True)
        spatial = PlainCNN(self.layers)
        temporal = PlainCNN((first, *self.layers[1:]), mean=(0.0, 0.0), std=(1.0, 1.0))
        streams = (
            MLPClassification(encoder, self, hidden=self.hidden, grid=encoder.grid_of(frames, self.size))
            for encoder, frames in ((spatial, 1), (temporal, self.num_frames - 1))
        )
        return TwoStream(*streams, self, single_frames=self.single_frames, subtract_mean=True)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels, fused by the SVM; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=6, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=TwoStreamConfig(
            layers=(
                ConvLayer(width=12, kernel=(1, 5, 5), stride=(1, 2, 2), pool=(1, 2, 2)),
                ConvLayer(width=24, kernel=(1, 3, 3), pool=(1, 4, 4)),
            ),
            hidden=(32,),
            num_frames=6,
            size=64,
            max_flow=6.0,
            fusion="svm",
            num_classes=8,
        ),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def ucf101() -> Run:
    """CNN-M-2048 twice, a frame and ten flows of 224 x 224 pixels, averaged, on UCF-101: 181M parameters."""
    return Run(
        data=Data(
            clip=Clip(num_frames=11, stride=1, size=224, short_side=(256, 256)),
            augment=Augment(),
            batch_size=256,
            num_workers=10,
        ),
        objective=TwoStreamConfig(
            layers=CNN_M, hidden=(4096, 2048), num_frames=11, size=224, dropout=0.9, num_classes=101
        ),
        optim=SGD(lr=1e-2, weight_decay=5e-4),
        train=Loop(length=Steps(80_000), clip_grad=None),
        evals=(MultiView(num_clips=25, num_crops=3),),
    )


def ucf101_svm() -> Run:
    """The same, fused by the SVM."""
    run = ucf101()
    return replace(run, objective=replace(run.objective, fusion="svm"))
