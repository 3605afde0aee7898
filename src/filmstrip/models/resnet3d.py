"""Parts of residual networks of bottlenecks over video, with convolutions in time where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from filmstrip.nn.conv import SpatialConv, TemporalConv

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Bottlenecks in each stage, by the number of layers that networks are named after."""
PIXEL_MEAN, PIXEL_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
"""What the published networks of this family normalise with."""


class Bottleneck(nn.Module):
    """1 x 1 (over ``frames`` frames), 3 x 3 and 1 x 1, each normalised, added to the input; ``B C T H W``.

    ``stride`` and ``dilation`` are in space, and the 3 x 3 convolution's. The last normalisation's scale starts at
    zero, so that the block starts as its shortcut (Goyal et al. 2017).
    """

    def __init__(
        self, inputs: int, inner: int, outputs: int, *, frames: int = 1, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        first = SpatialConv(inputs, inner, kernel=1) if frames == 1 else TemporalConv(inputs, inner, kernel=frames)
        self.body = nn.Sequential(
            first,
            nn.BatchNorm3d(inner),
            nn.ReLU(inplace=True),
            SpatialConv(inner, inner, stride=stride, dilation=dilation),
            nn.BatchNorm3d(inner),
            nn.ReLU(inplace=True),
            SpatialConv(inner, outputs, kernel=1),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                SpatialConv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm3d(outputs)
            )
        self.apply(init_conv)
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu_(self.body(x) + self.shortcut(x))


def stem(inputs: int, outputs: int, *, frames: int) -> nn.Sequential:
    """A 7 x 7 convolution over ``frames`` frames and a 3 x 3 pooling, each with stride 2 in space."""
    if frames == 1:
        conv: nn.Module = SpatialConv(inputs, outputs, kernel=7, stride=2)
    else:
        padding = (frames // 2, 3, 3)
        conv = nn.Conv3d(inputs, outputs, (frames, 7, 7), stride=(1, 2, 2), padding=padding, bias=False)
    init_conv(conv)
    pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    return nn.Sequential(conv, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True), pool)


def stage(
    inputs: int,
    outputs: int,
    *,
    depth: int,
    frames: Sequence[int],
    stride: int,
    dilation: int = 1,
    inner: int | None = None,
    with_time: int | None = None,
) -> nn.Sequential:
    """``depth`` bottlenecks whose kernels in time are ``frames``, in turn; 1 from block ``with_time`` on."""
    inner = inner or outputs // 4
    blocks = []
    for i in range(depth):
        kernel = frames[i % len(frames)] if with_time is None or i < with_time else 1
        both = {"frames": kernel, "stride": 1 if i else stride, "dilation": dilation}
        blocks.append(Bottleneck(outputs if i else inputs, inner, outputs, **both))
    return nn.Sequential(*blocks)


def width_of(blocks: nn.Sequential) -> int:
    """Output channels of a stage."""
    return blocks[0].body[-1].num_features


def init_conv(module: nn.Module) -> None:
    """He's normal initialisation by a convolution's outputs; other modules are left alone."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
