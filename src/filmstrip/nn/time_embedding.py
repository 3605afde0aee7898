"""Embedding of the time of a diffusion or flow."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Cosines and sines of the time at ``frequencies`` angular speeds, then a small network: ``B -> B D``.

    Peebles & Xie 2023 (DiT), after Ho et al. 2020: speeds fall geometrically from 1 to 1/10,000 for times 0..1000.
    """

    def __init__(self, width: int, *, frequencies: int = 128) -> None:
        super().__init__()
        speeds = torch.exp(-math.log(10_000) * torch.arange(frequencies, dtype=torch.float32) / frequencies)
        self.register_buffer("speeds", speeds, persistent=False)
        self.fc1 = nn.Linear(2 * frequencies, width)
        self.act = nn.SiLU()
        self.fc2 = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """``B D`` for times ``B``, 0..1000."""
        angles = time.float()[:, None] * self.speeds
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.fc2(self.act(self.fc1(waves.to(self.fc1.weight.dtype))))
