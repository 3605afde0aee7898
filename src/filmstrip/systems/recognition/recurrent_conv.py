"""Recurrent convolutional network: convolutions instead of the products of an RNN, a GRU or an LSTM, layer on layer.

Each layer's map at a moment depends on the layer below at that moment and on the same layer a frame earlier, with the
same weights at all times. Ballas et al., "Delving Deeper into Convolutional Networks for Learning Video
Representations", ICLR 2016; Shi et al., "Convolutional LSTM Network", NeurIPS 2015, for the LSTM.

    filmstrip train recognition.recurrent_conv --data.path PATH

Where we deviate: the paper's recurrent layers read five maps of a VGG-16 that was trained on images and fine-tuned on
flow and video; ours stand on a stem within frames and on each other, and learn from scratch. Batch normalisation
follows each. As in any recurrent network, frames come one after another: it cannot use a processor as well as a
convolution over time does.

Measured here (``filmstrip claims recurrent_order``, 200 steps, mean of three seeds): it names 100.0 of unseen
directions, and the opposite of 99.9 played backwards.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from einops import reduce
from torch import Tensor, nn

from filmstrip.bounds import Count, NotEmpty
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.nn.conv import SpatialConv, channels_first, tokens_of
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from filmstrip.objectives.stepwise import StepwiseClassification, StepwiseConfig
from filmstrip.protocols import Features, Grid, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW


class RecurrentConv(nn.Module):
    """``B C T H W -> B D T H W``, causal; ``gates`` maps of ``D`` channels are computed of input and state."""

    gates: int

    def __init__(self, inputs: int, width: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.width = width
        self.of_input = SpatialConv(inputs, self.gates * width, kernel=kernel, stride=stride, bias=True)
        self.of_state = nn.Conv2d(width, self.gates * width, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The state after each frame; before the first one it is zero."""
        given = self.of_input(x)
        shape = (x.shape[0], self.width, *given.shape[3:])
        state = self.first_state(given.new_zeros(shape))
        seen = []
        for frame in given.unbind(dim=2):
            state = self.step(frame, state)
            seen.append(state[0])
        return torch.stack(seen, dim=2)

    def first_state(self, zeros: Tensor) -> tuple[Tensor, ...]:
        """The state carried from frame to frame; its first part is the layer's output."""
        return (zeros,)

    @abstractmethod
    def step(self, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state, from the convolved input ``B (gates D) H W`` and the last state."""


class ConvRNN(RecurrentConv):
    """``h = tanh(W * x + U * h)``."""

    gates = 1

    def step(self, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state."""
        return (torch.tanh(given + self.of_state(state[0])),)


class ConvGRU(RecurrentConv):
    """An update gate says how much of the state is replaced, a reset gate how much of it the new one sees."""

    gates = 3

    def step(self, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state."""
        (last,) = state
        gate_weight, new_weight = self.of_state.weight.split((2 * self.width, self.width))
        padding = self.of_state.padding
        of_gates, of_new = given.split((2 * self.width, self.width), dim=1)
        gates = torch.sigmoid(of_gates + nn.functional.conv2d(last, gate_weight, padding=padding))
        update, reset = gates.chunk(2, dim=1)
        new = torch.tanh(of_new + nn.functional.conv2d(reset * last, new_weight, padding=padding))
        return (torch.lerp(last, new, update),)


class ConvLSTM(RecurrentConv):
    """A cell beside the state, with input, forget and output gates; it starts out remembering."""

    gates = 4

    def __init__(self, inputs: int, width: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, width, kernel=kernel, stride=stride)
        with torch.no_grad():
            self.of_input.bias[width : 2 * width] += 1

    def first_state(self, zeros: Tensor) -> tuple[Tensor, ...]:
        """State and cell."""
        return zeros, zeros

    def step(self, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state and cell."""
        last, cell = state
        gates, new = (given + self.of_state(last)).split((3 * self.width, self.width), dim=1)
        enter, keep, leave = torch.sigmoid(gates).chunk(3, dim=1)
        cell = keep * cell + enter * torch.tanh(new)
        return leave * torch.tanh(cell), cell


CELLS = {"rnn": ConvRNN, "gru": ConvGRU, "lstm": ConvLSTM}


class RecurrentCNN(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: a strided stem within frames, then recurrent convolutions.

    The stem has stride 4; each layer after the first halves height and width. Tokens of a frame depend on that frame
    and on all before it.
    """

    def __init__(self, config: RecurrentConvConfig) -> None:
        super().__init__()
        widths = config.widths
        self.width = widths[-1]
        self.depth = len(widths)
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)
        self.stem = nn.Sequential(
            SpatialConv(3, widths[0], kernel=7, stride=2),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
        inputs = [widths[0], *widths[:-1]]
        self.layers = nn.ModuleList(
            nn.Sequential(CELLS[config.cell](before, width, stride=2 if i else 1), nn.BatchNorm3d(width))
            for i, (before, width) in enumerate(zip(inputs, widths))
        )

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T 3 H W`` video; ``layers`` also returns each layer's tokens, on grids and widths of its own."""
        check_video(video)
        x = self.stem(channels_first(self.normalise(video)))
        seen = []
        for layer in self.layers:
            x = layer(x)
            if layers:
                seen.append(tokens_of(x))
        return Features(tokens_of(x), Grid(*x.shape[2:]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the stem, ``i + 1`` for recurrent layer ``i``."""
        return int(name.split(".")[1]) + 1 if name.startswith("layers.") else 0


class RecurrentConvolution(StepwiseClassification):
    """The head sees the mean over the places of a frame."""

    def states(self, video: Tensor) -> Tensor:
        """The state after each frame, ``B T D``."""
        features = self.encoder(video)
        return reduce(features.tokens, "b (t n) d -> b t d", "mean", t=features.grid.t)


@dataclass(frozen=True, kw_only=True)
class RecurrentConvConfig(StepwiseConfig):
    """A stem and recurrent convolutions, each after the first with stride 2."""

    cell: Literal["rnn", "gru", "lstm"] = "gru"
    widths: Annotated[tuple[Count, ...], NotEmpty]

    def build(self) -> RecurrentConvolution:
        """Build the network with fresh weights."""
        return RecurrentConvolution(RecurrentCNN(self), self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=RecurrentConvConfig(widths=(16, 32), num_classes=8),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
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
        objective=RecurrentConvConfig(widths=(64, 128, 256, 512), dropout=0.7, num_classes=101),
        optim=AdamW(lr=1e-4),
        train=Loop(length=Epochs(100), precision="bfloat16"),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )
