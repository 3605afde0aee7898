"""Splitting video into tubelets (spatiotemporal patches) and embedding them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


class NativeFrames(NamedTuple):
    """Clips whose frames differ in size: they lie at the top left of a video that is padded to one size."""

    size: Tensor
    """Height and width of each clip's frames, pixels, ``B 2``; multiples of a patch's."""
    is_patch: Tensor
    """Whether each of the ``N`` tokens of a frame is one of its patches, which come first, ``B N`` bool."""

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> NativeFrames | None:
        """Those of a batch; none where all frames have one size."""
        return cls(batch["frame_size"], batch["is_patch"]) if "is_patch" in batch else None

    def grids(self, patch_size: Sequence[int]) -> Tensor:
        """Rows and columns of patches, at least one each, ``B 2``."""
        height, width = self.size.unbind(dim=1)
        return torch.stack([height // patch_size[1], width // patch_size[2]], dim=1).clamp(min=1)

    def places(self, patch_size: Sequence[int]) -> Tensor:
        """Row and column of each token in its own frame, ``B N 2``; of padding, those of the last patch."""
        grids = self.grids(patch_size)
        token = torch.arange(self.is_patch.shape[1], device=self.size.device)
        token = torch.minimum(token, grids.prod(dim=1, keepdim=True) - 1)
        return torch.stack([token // grids[:, 1:], token % grids[:, 1:]], dim=-1)

    def valid(self) -> Tensor:
        """``is_patch``, with at least one patch for every clip."""
        first = torch.arange(self.is_patch.shape[1], device=self.is_patch.device) == 0
        return self.is_patch | first


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

    def native(self, video: Tensor, frames: NativeFrames) -> Tensor:
        """Tokens ``B T N D`` of the patches of frames that differ in size, row by row, with padding behind them."""
        p, _, r = self.patch_size
        places = frames.places(self.patch_size)
        index = places[..., 0] * (video.shape[4] // r) + places[..., 1]
        steps = video.shape[1] // p
        folded = rearrange(video, "b (t p) c h w -> (b t) p c h w", p=p)
        tokens = self(folded, index.repeat_interleave(steps, dim=0))
        return rearrange(tokens, "(b t) n d -> b t n d", t=steps)


def conv_to_linear(weight: Tensor) -> Tensor:
    """A patch convolution's weight ``D C p q r`` as :class:`PatchEmbed`'s ``D (p q r C)``."""
    return rearrange(weight, "d c p q r -> d (p q r c)").contiguous()


def linear_to_conv(weight: Tensor, patch_size: Sequence[int]) -> Tensor:
    """The inverse of :func:`conv_to_linear`."""
    p, q, r = patch_size
    return rearrange(weight, "d (p q r c) -> d c p q r", p=p, q=q, r=r).contiguous()
