"""Random numbers per sample, not per process.

Augmentations, masks and noise are derived from the sample's own ``seed``, so that they do not depend on process,
worker, batch, resumption or device. A counter-based
generator (the finaliser of SplitMix64 over ``seed`` and position) needs no state and compiles.
"""

from __future__ import annotations

import hashlib

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


def _wrapped(number: int) -> int:
    """The signed 64-bit integer that is equal to a number modulo 2**64."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _salt(use: str) -> int:
    """A signed 64-bit integer for the name of a use, the same on every machine."""
    return int.from_bytes(hashlib.sha256(use.encode()).digest()[:8], "little", signed=True)


# What torch.compiler.assume_constant_result sets, which as a decorator imports the whole compiler (1 s).
_salt.__dict__["_dynamo_marked_constant"] = True


def uniform(seeds: Tensor, count: int, use: str, *index: int) -> Tensor:
    """Independent uniform numbers in [0, 1), float32, ``B count``, from ``B`` int64 seeds.

    ``use`` names what they are for, such as ``videomae.masks``, so that two uses of one seed are independent; each
    place in the code has its own. One that draws repeatedly numbers its draws by ``index``, one integer or several.
    """
    salt = torch.full_like(seeds, _salt(use), dtype=torch.int64)
    for number in index:
        salt = _mix(salt) + _wrapped(number * _GOLDEN)
    # "| 0" changes nothing; without it inductor multiplies positions as indices, which do not wrap at 64 bits.
    position = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64) | 0
    start = _mix(seeds.to(torch.int64) + _mix(salt))
    bits = _mix(start[:, None] + position * _GOLDEN)
    return _logical_shift(bits, 40).to(torch.float32) * 2.0**-24


def normal(seeds: Tensor, count: int, use: str, *index: int) -> Tensor:
    """Independent standard normal numbers, float32, ``B count``, from ``B`` int64 seeds (Box and Muller 1958).

    ``use`` and ``index`` are as in :func:`uniform`. The first numbers do not depend on ``count``. The maximum
    magnitude is 5.8.
    """
    first, second = uniform(seeds, 2 * count, use, *index).unflatten(1, (count, 2)).unbind(2)
    return (-2 * torch.log1p(-first)).sqrt() * torch.cos(2 * torch.pi * second)
