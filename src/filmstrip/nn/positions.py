"""Fixed sine-cosine position tables."""

import torch
from torch import Tensor


def sincos_table(length: int, width: int) -> Tensor:
    """Sines and cosines of the position in the flattened sequence, ``length x width``, float32.

    Vaswani et al. 2017: channels ``2i`` and ``2i+1`` hold the sine and cosine of ``position / 10000^(2i/width)``.
    """
    position = torch.arange(length, dtype=torch.float64)[:, None]
    channel = torch.arange(width, dtype=torch.float64)
    angle = position / 10_000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).to(torch.float32)
