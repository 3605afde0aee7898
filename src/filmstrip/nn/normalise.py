"""Normalisation of pixels to the scale that a network was trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from filmstrip.protocols import as_float

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Normalise(nn.Module):
    """Subtract the mean and divide by the standard deviation, per channel; takes uint8, or floats in 0..1.

    Both are buffers saved with the weights: an encoder carries its own preprocessing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, pixels: Tensor, channels: int = 2) -> Tensor:
        """Normalised pixels, float32 (float64 stays); ``channels``: index of the channel dimension (2 in ``B T C H
        W``)."""
        shape = [1] * pixels.ndim
        shape[channels] = -1
        dtype = torch.promote_types(pixels.dtype, torch.float32)
        mean, std = self.mean.to(dtype).view(shape), self.std.to(dtype).view(shape)
        return as_float(pixels, dtype).sub(mean).div_(std)
