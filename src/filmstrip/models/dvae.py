"""The autoencoder of DALL-E's discrete VAE, for each frame alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_MARGIN = 0.1  # pixels are modelled in 0.1..0.9, where their logits are finite


def squeeze_pixels(video: Tensor) -> Tensor:
    """From 0..1 to 0.1..0.9."""
    return (1 - 2 * _MARGIN) * video + _MARGIN


def stretch_pixels(video: Tensor) -> Tensor:
    """The inverse of :func:`squeeze_pixels`, clamped to 0..1."""
    return ((video - _MARGIN) / (1 - 2 * _MARGIN)).clamp(0, 1)


class Bottle(nn.Module):
    """Four convolutions of a quarter of the width, scaled down by ``gain`` and added to the input: ``B C H W``."""

    def __init__(self, inputs: int, outputs: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        inner = outputs // 4
        widths = (inputs, inner, inner, inner, outputs)
        self.convs = nn.ModuleList(_conv(*pair, kernel) for pair, kernel in zip(pairwise(widths), kernels))
        self.shortcut = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = x
        for conv in self.convs:
            y = conv(F.relu(y))
        return self.shortcut(x) + self.gain * y


class Group(nn.Module):
    """Residual blocks of one width: ``B C H W``."""

    def __init__(self, inputs: int, width: int, depth: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Bottle(width if i else inputs, width, kernels, gain) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks in turn."""
        for block in self.blocks:
            x = block(x)
        return x


class DVAEAutoencoder(nn.Module):
    """Ramesh et al. 2021, in the sizes of the published model by default: groups of residual blocks, between which
    the frame is halved by maximum pooling, and doubled by repetition.

    The decoder gives ``B T 6 H W``: mean and log scale of the logit of each squeezed pixel.
    """

    frames_apart = True
    """Frames are coded and rebuilt one by one."""

    def __init__(
        self, *, input_dim: int, latent_dim: int, width: int = 256, num_groups: int = 4, depth: int = 2
    ) -> None:
        super().__init__()
        self.patch_size = (1, 2 ** (num_groups - 1), 2 ** (num_groups - 1))
        gain = 1 / (num_groups * depth) ** 2
        widths = [width * 2**i for i in range(num_groups)]
        self.encoder_in = _conv(3, width, 7)
        self.down = nn.ModuleList(
            Group(inputs, outputs, depth, (3, 3, 3, 1), gain) for inputs, outputs in pairwise([width, *widths])
        )
        self.encoder_out = _conv(widths[-1], input_dim, 1)
        self.up = nn.ModuleList(
            Group(inputs, outputs, depth, (1, 3, 3, 3), gain)
            for inputs, outputs in pairwise([latent_dim, *reversed(widths)])
        )
        self.decoder_out = _conv(width, 6, 1)

    def encode(self, video: Tensor) -> Tensor:
        """Latents ``B t h w D`` of ``B T C H W`` video in 0..1."""
        x = self.encoder_in(rearrange(squeeze_pixels(video), "b t c h w -> (b t) c h w"))
        for i, group in enumerate(self.down):
            x = group(F.max_pool2d(x, 2) if i else x)
        return rearrange(self.encoder_out(F.relu(x)), "(b t) d h w -> b t h w d", t=video.shape[1])

    def decode(self, latents: Tensor) -> Tensor:
        """Mean and log scale, ``B T 6 H W``, of latents ``B t h w D``."""
        x = rearrange(latents, "b t h w d -> (b t) d h w")
        for i, group in enumerate(self.up):
            x = group(F.interpolate(x, scale_factor=2, mode="nearest") if i else x)
        return rearrange(self.decoder_out(F.relu(x)), "(b t) c h w -> b t c h w", t=latents.shape[1])


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=1 / math.sqrt(inputs * kernel**2))
    nn.init.zeros_(conv.bias)
    return conv
