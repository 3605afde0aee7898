"""The video vision transformer with joint space-time attention over cubes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from filmstrip.nn.block import Block, run_blocks
from filmstrip.nn.initialisation import init_glorot
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.nn.patches import PatchEmbed, conv_to_linear, linear_to_conv
from filmstrip.nn.positions import sincos_table
from filmstrip.protocols import Features, Grid, Layout, check_video


class ViT(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: cubes to tokens, fixed sine-cosine positions, pre-norm blocks.

    Dosovitskiy et al. 2021, with the cubes of Arnab et al. 2021 (tubelets) and VideoMAE's details: queries and
    values have a bias and keys none, no class token. ``final_norm`` normalises the last tokens (pretraining);
    a classifier that pools first and normalises then leaves it out.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        num_heads: int,
        num_frames: int = 16,
        size: int = 224,
        patch_size: Sequence[int] = (2, 16, 16),
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        final_norm: bool = True,
        norm_eps: float = 1e-6,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.width = width
        self.depth = depth
        self.patch_size = tuple(patch_size)
        check_tiles(num_frames, size, self.patch_size)
        p, q, r = self.patch_size
        self.grid = Grid(num_frames // p, size // q, size // r)
        self.embed = PatchEmbed(width, self.patch_size, mean=mean, std=std)
        places = self.grid.t * self.grid.h * self.grid.w
        self.register_buffer("positions", sincos_table(places, width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(
                width,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias="no_key",
                drop_path=drop_path * i / max(1, depth - 1),
                norm_eps=norm_eps,
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps) if final_norm else nn.Identity()
        self.apply(init_glorot)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        ``visible`` (``B K``, indices into the grid) encodes those cubes alone: the others are dropped before any
        work is done on them, and the tokens are ``B K D``.
        """
        check_video(video, multiple=self.patch_size)
        given = tuple(size // p for size, p in zip((video.shape[1], *video.shape[3:]), self.patch_size))
        if given != self.grid:
            raise ValueError(
                f"this network was built for a grid of {tuple(self.grid)} cubes of {self.patch_size} pixels, "
                f"got {given}: cut clips of the size that it was built for"
            )
        tokens = self.embed(video, visible)
        positions = self.positions if visible is None else self.positions[visible]
        tokens, seen = run_blocks(self.blocks, tokens + positions.to(tokens.dtype), layers)
        return Features(self.norm(tokens), self.grid, tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the embedding, ``i + 1`` for block ``i``."""
        block = re.match(r"blocks\.(\d+)\.", name)
        if block:
            return int(block[1]) + 1
        return 0 if name.startswith("embed.") else self.depth + 1

    def layouts(self) -> tuple[Layout, ...]:
        """Those of VideoMAE's authors: of its classifiers, and of the model that it is pretrained in."""
        both = {"after": _AFTER, "to_ours": _as_linear, "to_theirs": self._as_convolution}
        return (
            Layout(name="classifier", rules=(*_PUBLISHED, (r"^encoder\.", "")), **both),
            Layout(name="pretraining", rules=_PUBLISHED, **both),
        )

    def _as_convolution(self, name: str, tensor: Tensor) -> Tensor:
        return linear_to_conv(tensor, self.patch_size) if name.endswith(_PROJECTION) else tensor


_PROJECTION = "embed.proj.weight"
_PUBLISHED = (
    (r"^encoder\.embed\.", "encoder.patch_embed."),
    (r"^decoder\.project\.", "encoder_to_decoder."),
    (r"^decoder\.mask_token$", "mask_token"),
    (r"^norm\.", "fc_norm."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
)
"""Ours to theirs, in pretraining models; in classifiers the encoder's names have nothing in front."""
_AFTER = (
    r"decoder\..*",
    r"encoder_to_decoder\..*",
    r"mask_token",
    r"fc_norm\..*",
    r"(?:encoder\.)?norm\..*",
    r"head\..*",
)


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """Patches are projected by a convolution there."""
    return conv_to_linear(tensor) if name.endswith(_PROJECTION) else tensor


def check_tiles(num_frames: int, size: int, patch_size: Sequence[int]) -> None:
    """Refuse a clip that patches do not tile.

    Raises:
        ValueError: naming the clip and the patches.
    """
    if any(extent % p for extent, p in zip((num_frames, size, size), patch_size)):
        raise ValueError(f"clips of {num_frames} x {size} x {size} are not a multiple of patches {tuple(patch_size)}")
