"""A clip's first frames as tokens that other networks read, VideoGPT's."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.models.video_autoencoder import ChannelNorm
from filmstrip.nn.axial import AxialPositions
from filmstrip.protocols import as_float


class FramesBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions, each normalised and rectified before they join the input: ``B C T H W``."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, project: bool) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=strides, padding=1, bias=False)
        self.norm1 = ChannelNorm(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = ChannelNorm(outputs)
        self.shortcut = nn.Identity()
        if project:
            conv = nn.Conv3d(inputs, outputs, 1, stride=strides, bias=False)
            self.shortcut = nn.Sequential(conv, ChannelNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; the frames stay as many."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(F.relu(self.norm2(self.conv2(y))) + self.shortcut(x))


class FirstFrames(nn.Module):
    """The features of a clip's first frames, at a quarter of their height and width, by a residual network.

    The second and third stage halve the grid; positions are learnt. ``size`` is a multiple of 4, and the last of the
    ``widths`` one of 3, which the positions' axes share.
    """

    def __init__(self, num_frames: int, size: int, *, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.width = widths[-1]
        self.stem = nn.Conv3d(3, widths[0], 3, padding=1, bias=False)
        self.norm = ChannelNorm(widths[0])
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = FramesBlock(inputs, width, stride=2 if i in (1, 2) else 1, project=True)
            rest = (FramesBlock(width, width, stride=1, project=False) for _ in range(depth - 1))
            self.stages.append(nn.Sequential(first, *rest))
            inputs = width
        self.positions = AxialPositions((num_frames, size // 4, size // 4), self.width)

    def forward(self, video: Tensor) -> Tensor:
        """Tokens ``B M D`` of the first ``num_frames`` of ``B T C H W`` video."""
        x = rearrange(as_float(video[:, : self.num_frames]) - 0.5, "b t c h w -> b c t h w")
        x = F.relu(self.norm(self.stem(x)))
        for stage in self.stages:
            x = stage(x)
        x = rearrange(x, "b d t h w -> b t h w d") + self.positions(x.shape[2:])
        return x.flatten(1, 3)
