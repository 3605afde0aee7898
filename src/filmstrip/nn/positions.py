"""Fixed sine-cosine position tables."""

import torch
from torch import Tensor


def sincos(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions ``... N``: ``... N width``, float32.

    Vaswani et al. 2017: channels ``2i`` and ``2i+1`` hold the sine and cosine of ``position / 10000^(2i/width)``.
    """
    channel = torch.arange(width, dtype=torch.float64, device=positions.device)
    angle = positions.to(torch.float64)[..., None] / 10_000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).to(torch.float32)


def sincos_table(length: int, width: int) -> Tensor:
    """:func:`sincos` of the positions of a flattened sequence, ``length x width``, float32."""
    return sincos(torch.arange(length), width)
