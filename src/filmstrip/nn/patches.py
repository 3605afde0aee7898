"""Splitting video into tubelets (spatiotemporal patches) and embedding them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from filmstrip.protocols import Grid


def patchify(video: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Split ``B T C H W`` video into tubelets: ``B N P C``, with ``P = t * h * w`` pixels in row-major order."""
    p, q, r = patch_size
    return rearrange(video, "b (t p) c (h q) (w r) -> b (t h w) (p q r) c", p=p, q=q, r=r)


def unpatchify(patches: Tensor, grid: Grid, patch_size: Sequence[int]) -> Tensor:
    """The inverse of :func:`patchify`."""
    (t, h, w), (p, q, r) = grid, patch_size
    return rearrange(patches, "b (t h w) (p q r) c -> b (t p) c (h q) (w r)", t=t, h=h, w=w, p=p, q=q, r=r)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens at ``index`` (``B K``) of ``B N ...``: ``B K ...``."""
    return tokens[torch.arange(tokens.shape[0], device=tokens.device)[:, None], index]


class PatchEmbed(nn.Module):
    """Normalise the pixels of each tubelet and project them to a token.

    One matrix product on tubelets laid out by :func:`patchify`: the same map as a 3D convolution whose stride is its
    kernel (:func:`conv_to_linear` converts), several times faster on a CPU, and able to skip masked tubelets.
    """

    def __init__(
        self,
        width: int,
        patch_size: Sequence[int],
        *,
        channels: int = 3,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.normalise = Normalise(mean, std)
        p, q, r = patch_size
        self.proj = nn.Linear(p * q * r * channels, width, bias=bias)

    def forward(self, video: Tensor, visible: Tensor | None = None) -> Tensor:
        """Tokens ``B N D`` of ``B T C H W`` video; only those at ``visible`` (``B K``) if provided."""
        patches = patchify(video, self.patch_size)
        if visible is not None:
            patches = take(patches, visible)
        return self.proj(self.normalise(patches, channels=-1).flatten(2))


def conv_to_linear(weight: Tensor) -> Tensor:
    """A patch convolution's weight ``D C p q r`` as :class:`PatchEmbed`'s ``D (p q r C)``."""
    return rearrange(weight, "d c p q r -> d (p q r c)").contiguous()


def linear_to_conv(weight: Tensor, patch_size: Sequence[int]) -> Tensor:
    """The inverse of :func:`conv_to_linear`."""
    p, q, r = patch_size
    return rearrange(weight, "d (p q r c) -> d c p q r", p=p, q=q, r=r).contiguous()
