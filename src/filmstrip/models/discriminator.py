"""Telling real frames from made ones, patch by patch."""

from __future__ import annotations

from itertools import pairwise

from einops import rearrange
from torch import Tensor, nn


class PatchDiscriminator(nn.Sequential):
    """Strided convolutions that judge overlapping patches of each frame (Isola et al. 2017).

    ``depth`` convolutions halve the frame, from ``width`` channels doubling up to ``max_width``. Group normalisation
    takes the place of the published batch normalisation, so that a frame is judged alone.
    """

    def __init__(self, *, width: int = 64, depth: int = 3, max_width: int = 512) -> None:
        widths = [min(width * 2**i, max_width) for i in range(depth + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            stride = 2 if i < depth - 1 else 1
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(min(8, outputs), outputs),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, video: Tensor) -> Tensor:
        """Logits ``(B T) 1 h w``, high for real, of ``B T C H W`` video in 0..1."""
        return super().forward(rearrange(video * 2 - 1, "b t c h w -> (b t) c h w"))
