"""A convolutional autoencoder over space and time with axial attention, VideoGPT's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.nn.axial import AxialAttention, AxialPositions

Form = Literal["paper", "released"]
"""What stands in a :class:`VideoAutoencoder`: what the paper says, or what its code and its weights have."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``B C T H W``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every place on its own."""
        return rearrange(super().forward(rearrange(x, "b c t h w -> b t h w c")), "b t h w c -> b c t h w")


class ResidualBlock(nn.Module):
    """Two convolutions, then axial attention where ``num_heads`` is not zero, added to the input: ``B C T H W``."""

    def __init__(self, width: int, residual_width: int, num_heads: int, form: Form) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _norm(width, form),
            nn.ReLU(),
            nn.Conv3d(width, residual_width, 3, padding=1, bias=False),
            _norm(residual_width, form),
            nn.ReLU(),
            nn.Conv3d(residual_width, width, 1, bias=False),
        )
        self.attention = AxialAttention(width, num_heads) if num_heads else None
        self.norm = _norm(width, form) if num_heads else None

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Apply the block; ``positions`` (``t h w D``), if there are any, are added to what attention sees."""
        y = self.convs(x)
        if self.attention is not None:
            seen = rearrange(F.relu(self.norm(y)), "b c t h w -> b t h w c")
            seen = seen if positions is None else seen + positions
            y = rearrange(self.attention(seen), "b t h w c -> b c t h w")
        return x + y


class ResidualStack(nn.Module):
    """Residual blocks, a norm and a nonlinearity: ``B C T H W``."""

    def __init__(self, width: int, residual_width: int, depth: int, num_heads: int, form: Form) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, residual_width, num_heads, form) for _ in range(depth))
        self.norm = _norm(width, form)

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Apply the blocks in turn."""
        for block in self.blocks:
            x = block(x, positions)
        return F.relu(self.norm(x))


class DownConv(nn.Conv3d):
    """A convolution of ``4 x 4 x 4`` that divides each axis by its stride, 1 or 2, padded to do so."""

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__(inputs, outputs, 4, stride=tuple(stride))

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C' T/s H/s W/s``."""
        before_and_after = {1: (2, 1), 2: (1, 1)}
        return super().forward(F.pad(x, [p for s in reversed(self.stride) for p in before_and_after[s]]))


class UpConv(nn.ConvTranspose3d):
    """A transposed convolution of ``4 x 4 x 4`` that multiplies each axis by its stride, 1 or 2, padded to do so."""

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__(inputs, outputs, 4, stride=tuple(stride), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C' T*s H*s W*s``."""
        t, h, w = (size * s for size, s in zip(x.shape[2:], self.stride))
        return super().forward(x)[:, :, :t, :h, :w]  # where the stride is 1, one place more comes out


class VideoAutoencoder(nn.Module):
    """Strided 3D convolutions down to a grid, residual blocks with axial attention, and the reverse.

    ``form``: in the ``paper`` norms are layer norms, convolutions that halve have 3 x 3 x 3 kernels, and positions
    are learnt and shared by all attention layers of encoder and decoder; as ``released`` there are batch norms,
    kernels of 4 x 4 x 4 and no positions. ``num_heads`` of zero leaves attention out. Only positions limit the size
    of the video.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        latent_dim: int,
        patch_size: Sequence[int],
        num_frames: int,
        size: int,
        width: int = 240,
        residual_width: int = 128,
        depth: int = 4,
        num_heads: int = 2,
        form: Form = "paper",
    ) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        strides = _strides(self.patch_size)
        grid = (num_frames // patch_size[0], size // patch_size[1], size // patch_size[2])
        self.positions = AxialPositions(grid, width) if num_heads and form == "paper" else None
        self.down = nn.ModuleList(_halve(width if i else 3, width, stride, form) for i, stride in enumerate(strides))
        self.last = nn.Conv3d(width, width, 3, padding=1)
        self.encoder = ResidualStack(width, residual_width, depth, num_heads, form)
        self.to_latents = nn.Conv3d(width, input_dim, 1)
        self.from_latents = nn.Conv3d(latent_dim, width, 1)
        self.decoder = ResidualStack(width, residual_width, depth, num_heads, form)
        self.up = nn.ModuleList(
            UpConv(width, width if i < len(strides) - 1 else 3, stride) for i, stride in enumerate(strides)
        )

    def encode(self, video: Tensor) -> Tensor:
        """Latents ``B t h w D`` of ``B T C H W`` video in 0..1."""
        x = rearrange(video - 0.5, "b t c h w -> b c t h w")
        for conv in self.down:
            x = F.relu(conv(x))
        x = self.encoder(self.last(x), self._embed(x))
        return rearrange(self.to_latents(x), "b d t h w -> b t h w d")

    def decode(self, latents: Tensor) -> Tensor:
        """Video ``B T C H W``, about 0..1, of latents ``B t h w D``."""
        x = self.from_latents(rearrange(latents, "b t h w d -> b d t h w"))
        x = self.decoder(x, self._embed(x))
        for i, conv in enumerate(self.up):
            x = conv(F.relu(x) if i else x)
        return rearrange(x, "b c t h w -> b t c h w") + 0.5

    def _embed(self, x: Tensor) -> Tensor | None:
        return None if self.positions is None else self.positions(x.shape[2:])


def _norm(width: int, form: Form) -> nn.Module:
    return ChannelNorm(width) if form == "paper" else nn.BatchNorm3d(width)


def _halve(inputs: int, outputs: int, stride: Sequence[int], form: Form) -> nn.Module:
    if form == "paper":
        return nn.Conv3d(inputs, outputs, 3, stride=tuple(stride), padding=1)
    return DownConv(inputs, outputs, stride)


def _strides(patch_size: Sequence[int]) -> list[tuple[int, ...]]:
    """The strides of convolutions that halve each axis until a patch is one place."""
    if min(patch_size) < 1 or any(size & (size - 1) for size in patch_size) or max(patch_size) < 2:
        raise UserError(f"patch sizes are powers of two, and at least one of them above 1, not {tuple(patch_size)}")
    strides, left = [], list(patch_size)
    while max(left) > 1:
        strides.append(tuple(2 if size > 1 else 1 for size in left))
        left = [max(size // 2, 1) for size in left]
    return strides
