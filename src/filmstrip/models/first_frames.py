"""A clip's first frames as tokens that other networks read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.models.resnet import BasicBlock
from filmstrip.nn.conv import Conv2Plus1D, matching_channels
from filmstrip.protocols import as_float


class FirstFrames(nn.Module):
    """The features of a clip's first frames, at a quarter of their size, by a (2+1)D residual network.

    The second and third stage halve the grid, in time too; positions are learnt.
    """

    def __init__(self, num_frames: int, size: int, *, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.width = widths[-1]
        layers: list[nn.Module] = [
            Conv2Plus1D(3, widths[0], middle=matching_channels(3, widths[0])),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                stride = 2 if i == 0 and stage in (1, 2) else 1
                layers.append(BasicBlock("2plus1d", inputs, width, stride))
                inputs = width
        self.network = nn.Sequential(*layers)
        places = -(-num_frames // 4) * (-(-size // 4)) ** 2
        self.pos_embed = nn.Parameter(torch.randn(places, self.width) * 0.02)

    def forward(self, video: Tensor) -> Tensor:
        """Tokens ``B M D`` of the first ``num_frames`` of ``B T C H W`` video."""
        first = rearrange(as_float(video[:, : self.num_frames]) - 0.5, "b t c h w -> b c t h w")
        x = self.network(first.contiguous(memory_format=torch.channels_last_3d))
        return rearrange(x, "b d t h w -> b (t h w) d") + self.pos_embed
