"""A convolutional autoencoder for each frame alone, VQ-GAN's and latent diffusion's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty
from filmstrip.errors import UserError
from filmstrip.nn.attention import Attention

_EPS = 1e-6  # of every normalisation, as published


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input: ``B C H W``."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=_EPS)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=_EPS)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class FrameAttention(nn.Module):
    """Attention of one head among all positions of a frame, added to the input: ``B C H W``."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=_EPS)
        self.attention = Attention(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.attention(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        return x + rearrange(y, "b (h w) c -> b c h w", h=x.shape[2])


class Down(nn.Conv2d):
    """A convolution that halves height and width, padded below and to the right only, as published."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C H/2 W/2``."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Conv2d):
    """Each pixel doubled in height and width, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C 2H 2W``."""
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if asked, then a change of resolution."""

    def __init__(
        self, inputs: int, outputs: int, depth: int, *, attention: bool, resample: nn.Module, groups: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(outputs if i else inputs, outputs, groups) for i in range(depth))
        self.attentions = nn.ModuleList(FrameAttention(outputs, groups) for _ in range(depth if attention else 0))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """Apply the level."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[i](x)
        return self.resample(x)


def _middle(width: int, groups: int, *, attention: bool) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(width, width, groups),
        FrameAttention(width, groups) if attention else nn.Identity(),
        ResidualBlock(width, width, groups),
    )


def _out(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(groups, inputs, eps=_EPS), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))


@dataclass(frozen=True, kw_only=True)
class FrameAutoencoderArchitecture:
    """The configuration of a :class:`FrameAutoencoder`."""

    widths: Annotated[tuple[Count, ...], NotEmpty] = (128, 128, 256, 512)
    """Channels of each level."""
    depth: Count = 2
    """Residual blocks in each level of the encoder; the decoder has one more."""
    halvings: CountOrZero | None = None
    """Number of levels, from the first, that halve the frame; by default all but the last."""
    attention_levels: tuple[CountOrZero, ...] = ()
    """Levels with attention, counted from 0 at full resolution."""
    middle_attention: bool = True
    """Whether there is attention at the lowest resolution, between encoder and decoder."""
    groups: Count = 32
    """Groups of the normalisation."""
    patch: Count = 1
    """Side of the squares of pixels that are the channels of one position from the first level on, as in
    LTX-Video's autoencoder; of one pixel, levels alone make frames smaller."""
    pixels: Literal["signed", "unit"] = "signed"
    """Range of the pixels that the networks read and write: -1 to 1, or 0 to 1 (aMUSEd's)."""


class FrameAutoencoder(nn.Module):
    """Esser et al. 2021: levels of residual blocks, each but the last ones halving the frame, and the reverse."""

    frames_apart = True

    def __init__(self, config: FrameAutoencoderArchitecture, *, input_dim: int, latent_dim: int) -> None:
        """``input_dim`` and ``latent_dim`` are the channels before and after the bottleneck.

        Raises:
            UserError: the widths and the halvings do not fit.
        """
        super().__init__()
        widths, depth, groups, attention_levels = config.widths, config.depth, config.groups, config.attention_levels
        halvings = len(widths) - 1 if config.halvings is None else config.halvings
        if not 0 <= halvings < len(widths) or any(width % groups for width in widths):
            raise UserError(
                f"widths {widths} must be multiples of {groups} (the normalisation's groups) and more than "
                f"the {halvings} halvings"
            )
        self.patch = config.patch
        self.patch_size = (1, config.patch * 2**halvings, config.patch * 2**halvings)
        self.signed = config.pixels == "signed"
        # as published what the bottleneck takes, a code or the mean and variance of one; not thousands of logits
        out = min(input_dim, 2 * latent_dim)
        first, last, colours = widths[0], widths[-1], 3 * config.patch**2
        self.conv_in = nn.Conv2d(colours, first, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            half = Down(width) if i < halvings else nn.Identity()
            same = {"attention": i in attention_levels, "groups": groups}
            self.down.append(Level(widths[max(i - 1, 0)], width, depth, resample=half, **same))
        self.encoder_middle = _middle(last, groups, attention=config.middle_attention)
        self.encoder_out = _out(last, out, groups)
        self.to_latents = nn.Conv2d(out, input_dim, 1)
        self.from_latents = nn.Conv2d(latent_dim, latent_dim, 1)
        self.decoder_in = nn.Conv2d(latent_dim, last, 3, padding=1)
        self.decoder_middle = _middle(last, groups, attention=config.middle_attention)
        for i in reversed(range(len(widths))):
            double = Up(widths[i]) if 0 < i <= halvings else nn.Identity()
            same = {"attention": i in attention_levels, "groups": groups}
            above = widths[min(i + 1, len(widths) - 1)]
            self.up.append(Level(above, widths[i], depth + 1, resample=double, **same))
        self.decoder_out = _out(first, colours, groups)

    @property
    def last_weight(self) -> nn.Parameter:
        """The weight of the decoder's last layer, at which an adaptive loss weight compares gradients."""
        return self.decoder_out[-1].weight

    def encode(self, video: Tensor) -> Tensor:
        """Latents ``B t h w D`` of ``B T C H W`` video in 0..1."""
        frames = rearrange(video * 2 - 1 if self.signed else video, "b t c h w -> (b t) c h w")
        x = self.conv_in(F.pixel_unshuffle(frames, self.patch))
        for level in self.down:
            x = level(x)
        x = self.to_latents(self.encoder_out(self.encoder_middle(x)))
        return rearrange(x, "(b t) d h w -> b t h w d", t=video.shape[1])

    def decode(self, latents: Tensor) -> Tensor:
        """Video ``B T C H W``, about 0..1, of latents ``B t h w D``."""
        x = self.decoder_in(self.from_latents(rearrange(latents, "b t h w d -> (b t) d h w")))
        x = self.decoder_middle(x)
        for level in self.up:
            x = level(x)
        frames = F.pixel_shuffle(self.decoder_out(x), self.patch)
        pixels = rearrange(frames, "(b t) c h w -> b t c h w", t=latents.shape[1])
        return pixels / 2 + 0.5 if self.signed else pixels
