"""Residual networks over video: two-dimensional in each frame, or (2+1)-dimensional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, NotEmpty
from filmstrip.nn.conv import Conv2Plus1D, SpatialConv, TemporalConv, matching_channels
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from filmstrip.protocols import Features, Grid, check_video


@dataclass(frozen=True, kw_only=True)
class ResNetArchitecture:
    """The configuration of a residual network within frames."""

    widths: Annotated[tuple[Count, ...], NotEmpty]
    """Channels of each stage."""
    depths: Annotated[tuple[Count, ...], NotEmpty]
    """Basic blocks of each stage."""
    early_stride: Count = 1
    """Stride of the first stage; 2 stands for the max pooling of ResNet's stem."""


@dataclass(frozen=True, kw_only=True)
class ResNet2Plus1DArchitecture(ResNetArchitecture):
    """The configuration of a (2+1)-dimensional residual network."""

    stem_width: Count
    """Channels between the two halves of the first convolution."""
    subtract_mean_frame: bool = False
    """Whether each pixel's mean over the clip is subtracted first, which helps against still backgrounds."""


class ResNet(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of basic blocks (He et al. 2016; Tran et al. 2018 for R(2+1)D).

    Within frames, all frames are kept; a (2+1)D network convolves over time in every block and halves the number of
    frames in each stage after the first. The stem halves height and width, and so does each stage after the first.
    """

    def __init__(self, config: ResNetArchitecture) -> None:
        super().__init__()
        split = config if isinstance(config, ResNet2Plus1DArchitecture) else None
        self.width = config.widths[-1]
        self.depth = len(config.widths)
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)
        self.subtract_mean_frame = split is not None and split.subtract_mean_frame
        inputs = config.widths[0]
        self.stem = _stem(inputs) if split is None else _split_stem(split.stem_width, inputs)
        over_time = split is not None
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            stride = 2 if i else config.early_stride
            rest = [BasicBlock(width, width, over_time=over_time) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(BasicBlock(inputs, width, stride, over_time=over_time), *rest))
            inputs = width
        self.apply(_init_conv)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each stage's tokens, on grids and widths of its own."""
        check_video(video)
        x = self.normalise(video)
        if self.subtract_mean_frame:
            x = x - x.mean(dim=1, keepdim=True)
        x = rearrange(x, "b t c h w -> b c t h w").contiguous(memory_format=torch.channels_last_3d)
        x = self.stem(x)
        seen = []
        for stage in self.stages:
            x = stage(x)
            if layers:
                seen.append(_tokens(x))
        return Features(_tokens(x), Grid(*x.shape[2:]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the stem, ``i + 1`` for stage ``i``."""
        return int(name.split(".")[1]) + 1 if name.startswith("stages.") else 0


class BasicBlock(nn.Module):
    """Two convolutions with batch normalisation, added to their input: ``B C T H W`` to a stride of it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, over_time: bool) -> None:
        super().__init__()
        # Both convolutions share the first one's middle width, as in the published networks: R(2+1)D-18 has its
        # 31.3 million parameters only so.
        middle = matching_channels(inputs, outputs)
        self.body = nn.Sequential(
            _conv(inputs, outputs, middle if over_time else None, stride),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            _conv(outputs, outputs, middle if over_time else None),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            strides = (stride if over_time else 1, stride, stride)
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=strides, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu_(self.body(x) + self.shortcut(x))


def _conv(inputs: int, outputs: int, middle: int | None, stride: int = 1) -> nn.Module:
    """A convolution within frames, or with ``middle`` channels between it and one over time."""
    if middle is None:
        return SpatialConv(inputs, outputs, stride=stride)
    return Conv2Plus1D(inputs, outputs, middle=middle, stride=stride)


def _stem(outputs: int) -> nn.Sequential:
    """A 7 x 7 convolution with stride 2."""
    return nn.Sequential(SpatialConv(3, outputs, kernel=7, stride=2), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))


def _split_stem(middle: int, outputs: int) -> nn.Sequential:
    """The same, then a convolution over 3 frames."""
    return _stem(middle).extend([TemporalConv(middle, outputs), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)])


def _tokens(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> b (t h w) c")


def _init_conv(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
