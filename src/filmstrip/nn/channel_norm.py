"""Layer normalisation over the channels of video."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``B C T H W``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every place on its own."""
        return rearrange(super().forward(rearrange(x, "b c t h w -> b t h w c")), "b t h w c -> b c t h w")
