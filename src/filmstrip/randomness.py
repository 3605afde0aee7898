"""Random numbers per sample, not per process.

Augmentations, masks and noise are derived from the sample's own ``seed``, so that they do not depend on process,
worker, batch, resumption or device. A counter-based
generator (the finaliser of SplitMix64 over ``seed`` and position) needs no state and compiles.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    """Shift right filling with zeros (``>>`` on int64 copies the sign bit)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _logical_shift(x, 30)) * _MIX1
    x = (x ^ _logical_shift(x, 27)) * _MIX2
    return x ^ _logical_shift(x, 31)


def uniform(seeds: Tensor, count: int, salt: int) -> Tensor:
    """Independent uniform numbers in [0, 1), float32, ``B count``, from ``B`` int64 seeds.

    ``salt`` identifies the use (each has its own), so that two uses of one seed are independent.
    """
    position = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64)
    start = _mix(seeds.to(torch.int64) + _mix(torch.full_like(seeds, salt, dtype=torch.int64) * _GOLDEN))
    bits = _mix(start[:, None] + position * _GOLDEN)
    return _logical_shift(bits, 40).to(torch.float32) * 2.0**-24


def normal(seeds: Tensor, count: int, salt: int) -> Tensor:
    """Independent standard normal numbers, float32, ``B count``, from ``B`` int64 seeds (Box and Muller 1958).

    The first numbers do not depend on ``count``. The maximum magnitude is 5.8.
    """
    first, second = uniform(seeds, 2 * count, salt).unflatten(1, (count, 2)).unbind(2)
    return (-2 * torch.log1p(-first)).sqrt() * torch.cos(2 * torch.pi * second)
