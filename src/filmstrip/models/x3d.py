"""X3D: a small image network expanded along one axis after another (Feichtenhofer 2020)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.models.resnet3d import PIXEL_MEAN, PIXEL_STD, init_conv
from filmstrip.nn.conv import SpatialConv, Window, channels_first, tokens_of
from filmstrip.nn.normalise import Normalise
from filmstrip.protocols import Features, Grid, check_video

_DEPTHS = (1, 2, 5, 3)


class X3D(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: channel-wise 3 x 3 x 3 convolutions inside bottlenecks that widen.

    ``width`` is the first stage's, doubled from stage to stage; ``deeper`` multiplies the stages' 1, 2, 5 and 3
    blocks, rounding up; ``bottleneck`` is how much wider than a block its inside is. All frames are kept; height and
    width are halved by the stem and by each stage. A token is what the published head pools. ``shortcut_norm``
    normalises every shortcut that is a convolution, also where only the stride differs.
    """

    def __init__(
        self, *, width: int = 24, deeper: float = 2.2, bottleneck: float = 2.25, shortcut_norm: bool = False
    ) -> None:
        super().__init__()
        self.shortcut_norm = shortcut_norm
        self.depth = len(_DEPTHS) + 1
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        self.stem = nn.Sequential(
            SpatialConv(3, width, stride=2),
            ChannelConv(width, kernel=(5, 1, 1)),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList()
        inputs = width
        for i, depth in enumerate(_DEPTHS):
            outputs = width * 2**i
            blocks = []
            for j in range(math.ceil(depth * deeper)):
                inner = int(outputs * bottleneck)
                # Every other block weighs its channels by their means.
                norm = shortcut_norm or inputs != outputs
                blocks.append(Block(inputs, inner, outputs, stride=1 if j else 2, excite=j % 2 == 0, norm=norm))
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
        self.width = int(inputs * bottleneck)
        self.last = nn.Sequential(
            SpatialConv(inputs, self.width, kernel=1), nn.BatchNorm3d(self.width), nn.ReLU(inplace=True)
        )
        self.apply(init_conv)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T 3 H W`` video; ``layers`` also returns each stage's tokens, on grids and widths of its own."""
        check_video(video)
        x = self.stem(channels_first(self.normalise(video)))
        seen = []
        for blocks in self.stages:
            x = blocks(x)
            if layers:
                seen.append(tokens_of(x))
        x = self.last(x)
        return Features(tokens_of(x), Grid(*x.shape[2:]), (*seen, tokens_of(x)) if layers else ())

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the stem, ``i + 1`` for stage ``i``, then the last one."""
        if name.startswith("stages."):
            return int(name.split(".")[1]) + 1
        return self.depth if name.startswith("last.") else 0


class ChannelConv(nn.Conv3d):
    """A convolution of each channel alone, without bias, padded to keep the size; ``stride`` is in space."""

    def __init__(self, channels: int, *, kernel: tuple[int, int, int] = (3, 3, 3), stride: int = 1) -> None:
        padding = tuple(k // 2 for k in kernel)
        super().__init__(
            channels, channels, kernel, stride=(1, stride, stride), padding=padding, groups=channels, bias=False
        )


class Excite(nn.Module):
    """Channels weighed by a small network's view of their means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = _multiple_of_8(channels / 16)
        self.weigh = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W`` to the same."""
        return x * rearrange(self.weigh(x.mean(dim=(2, 3, 4))), "b c -> b c 1 1 1")

    def window(self, size: tuple[int, int, int]) -> Window:
        """Every place sees all of an activation of ``size`` (t, h, w)."""
        return tuple(2 * n - 1 for n in size), (1, 1, 1)


class Block(nn.Module):
    """1 x 1, channel-wise 3 x 3 x 3 and 1 x 1, added to the input; ``stride`` is in space.

    Where the input changes its size on the way, it is convolved, and with ``norm`` normalised.
    """

    def __init__(self, inputs: int, inner: int, outputs: int, *, stride: int, excite: bool, norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            SpatialConv(inputs, inner, kernel=1),
            nn.BatchNorm3d(inner),
            nn.ReLU(inplace=True),
            ChannelConv(inner, stride=stride),
            nn.BatchNorm3d(inner),
            Excite(inner) if excite else nn.Identity(),
            nn.SiLU(inplace=True),
            SpatialConv(inner, outputs, kernel=1),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            last = nn.BatchNorm3d(outputs) if norm else nn.Identity()
            self.shortcut = nn.Sequential(SpatialConv(inputs, outputs, kernel=1, stride=stride), last)
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu_(self.body(x) + self.shortcut(x))


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and not less than nine tenths of what was asked for."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
