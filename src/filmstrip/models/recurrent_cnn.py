"""A recurrent convolutional network: each layer's map depends on the layer below now and on itself a frame ago."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from filmstrip.nn.conv import SpatialConv, channels_first, tokens_of
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from filmstrip.nn.recurrent_conv import CELLS
from filmstrip.protocols import Features, Grid, check_video


class RecurrentCNN(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: a strided stem within frames, then recurrent convolutions.

    The stem has stride 4; each layer after the first halves height and width. Tokens of a frame depend on that frame
    and on all before it.
    """

    def __init__(
        self,
        *,
        cell: Literal["rnn", "gru", "lstm"] = "gru",
        widths: Sequence[int] = (64, 128, 256, 512),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.width = widths[-1]
        self.depth = len(widths)
        self.normalise = Normalise(mean, std)
        self.stem = nn.Sequential(
            SpatialConv(3, widths[0], kernel=7, stride=2),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
        inputs = [widths[0], *widths[:-1]]
        self.layers = nn.ModuleList(
            nn.Sequential(CELLS[cell](before, width, stride=2 if i else 1), nn.BatchNorm3d(width))
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
