"""Residual networks over video: two-dimensional in each frame, or (2+1)-dimensional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.conv import Conv2Plus1D, SpatialConv, TemporalConv, matching_channels
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from filmstrip.protocols import Features, Grid, check_video

Kind = Literal["2d", "2plus1d"]


class ResNet(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of basic blocks (He et al. 2016; Tran et al. 2018 for R(2+1)D).

    ``2d`` looks at each frame alone and keeps all frames; ``2plus1d`` mixes frames in every convolution and halves
    their number in each stage after the first. The stem halves height and width, and so does each stage after the
    first; ``early_stride`` is the first stage's. The default sizes are ResNet-18's. With ``subtract_mean_frame`` each
    pixel's mean over the clip is taken away first: what does not move vanishes.
    """

    def __init__(
        self,
        *,
        kind: Kind,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        stem_width: int = 45,
        early_stride: int = 1,
        subtract_mean_frame: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.width = widths[-1]
        self.depth = len(widths)
        self.normalise = Normalise(mean, std)
        self.subtract_mean_frame = subtract_mean_frame
        self.stem = _stem(kind, stem_width, widths[0])
        inputs = widths[0]
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            stride = 2 if i else early_stride
            rest = [BasicBlock(kind, width, width) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(BasicBlock(kind, inputs, width, stride), *rest))
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

    def __init__(self, kind: Kind, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        # Both convolutions share the first one's middle width, as in the published networks: R(2+1)D-18 has its
        # 31.3 million parameters only so.
        middle = matching_channels(inputs, outputs)
        self.body = nn.Sequential(
            _conv(kind, inputs, outputs, middle, stride),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
            _conv(kind, outputs, outputs, middle),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            strides = (1 if kind == "2d" else stride, stride, stride)
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=strides, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu_(self.body(x) + self.shortcut(x))


def _conv(kind: Kind, inputs: int, outputs: int, middle: int, stride: int = 1) -> nn.Module:
    if kind == "2d":
        return SpatialConv(inputs, outputs, stride=stride)
    return Conv2Plus1D(inputs, outputs, middle=middle, stride=stride)


def _stem(kind: Kind, middle: int, outputs: int) -> nn.Sequential:
    """A 7 x 7 convolution with stride 2, followed in time by one of 3 frames for (2+1)D."""
    if kind == "2d":
        return nn.Sequential(
            SpatialConv(3, outputs, kernel=7, stride=2), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
        )
    return nn.Sequential(
        SpatialConv(3, middle, kernel=7, stride=2),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        TemporalConv(middle, outputs),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


def _tokens(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> b (t h w) c")


def _init_conv(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
