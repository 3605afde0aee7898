"""Stochastic depth."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch for a random fraction ``rate`` of the samples (Huang et al. 2016, stochastic depth).

    Kept samples are scaled by ``1 / (1 - rate)``; the identity in evaluation mode.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``B ... -> B ...``."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return x * torch.bernoulli(torch.full(shape, keep, dtype=x.dtype, device=x.device)).div_(keep)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"rate={self.rate}"
