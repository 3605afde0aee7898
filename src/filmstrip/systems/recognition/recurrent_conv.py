"""Recurrent convolutional network: convolutions instead of the products of an RNN, a GRU or an LSTM, layer on layer.

Each layer's map at a moment depends on the layer below at that moment and on the same layer a frame earlier, with the
same weights at all times. Ballas et al., "Delving Deeper into Convolutional Networks for Learning Video
Representations", ICLR 2016; Shi et al., "Convolutional LSTM Network", NeurIPS 2015, for the LSTM.

    filmstrip train recognition.recurrent_conv --data.path PATH

Where we deviate: the paper's recurrent layers read five maps of a VGG-16 that was trained on images and fine-tuned on
flow and video; ours stand on a stem within frames and on each other, and learn from scratch. Batch normalisation
follows each. As in any recurrent network, frames come one after another: it cannot use a processor as well as a
convolution over time does.

Measured here (``python claims/recurrent_order.py --steps 200``): it names 100.0 of unseen directions, and the
opposite of 100.0 played backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from einops import reduce
from torch import Tensor

from filmstrip.bounds import Count, NotEmpty, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.recurrent_cnn import RecurrentCNN
from filmstrip.objectives.classification import ClassificationConfig
from filmstrip.objectives.over_time import Readout, StepwiseClassification
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim


class RecurrentConvolution(StepwiseClassification):
    """The head sees the mean over the places of a frame."""

    def states(self, video: Tensor) -> Tensor:
        """What is known after each frame, ``B T D``."""
        features = self.encoder(video)
        return reduce(features.tokens, "b (t n) d -> b t d", "mean", t=features.grid.t)


@dataclass(frozen=True, kw_only=True)
class RecurrentConvConfig(ClassificationConfig):
    """A stem and recurrent convolutions, each after the first with stride 2."""

    cell: Literal["rnn", "gru", "lstm"] = "gru"
    widths: Annotated[tuple[Count, ...], NotEmpty] = (64, 128, 256, 512)
    readout: Readout = "last"
    """Which frames' states name the clip."""
    dropout: ShareBelowOne = 0.7
    """Before the head."""

    def build(self) -> RecurrentConvolution:
        """Build the network with fresh weights."""
        return RecurrentConvolution(
            RecurrentCNN(cell=self.cell, widths=self.widths),
            self.num_classes,
            readout=self.readout,
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
        objective=RecurrentConvConfig(widths=(16, 32), dropout=0.0, num_classes=8),
        optim=Optim(lr=3e-3),
        train=Loop(steps=100),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def gru_ucf101() -> Run:
    """Convolutional GRUs on ten frames of UCF-101."""
    return Run(
        data=Data(
            clip=Clip(num_frames=10, sampling="segments", size=224, short_side=(256, 256)),
            augment=Augment(),
            batch_size=64,
            num_workers=10,
        ),
        objective=RecurrentConvConfig(num_classes=101),
        optim=Optim(lr=1e-4),
        train=Loop(epochs=100, precision="bfloat16"),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )
