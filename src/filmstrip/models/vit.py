"""The video vision transformer with joint space-time attention over tubelets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, Rate, ShareBelowOne
from filmstrip.nn.block import Block, run_blocks
from filmstrip.nn.initialisation import init_glorot
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.nn.patches import PatchEmbed, conv_to_linear, linear_to_conv
from filmstrip.nn.positions import PositionKind, fixed_positions
from filmstrip.protocols import Features, Grid, Layout, check_video


@dataclass(frozen=True, kw_only=True)
class ViTArchitecture:
    """The configuration of a :class:`ViT`."""

    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    num_frames: Count
    """Frames of a clip."""
    size: Count
    """Height and width of a clip, pixels."""
    patch_size: tuple[Count, Count, Count]
    """Frames, height and width of a tubelet."""
    mlp_ratio: Rate = 4.0
    """Width of a feed-forward network, relative to that of its tokens."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    norm_eps: Rate = 1e-6
    """Constant that normalisations add to the variance."""
    positions: PositionKind = "table"
    """Fixed sine-cosine positions: of the flattened grid (``table``, VideoMAE) or of its axes (``axes``, MVD)."""
    mean: tuple[AnyNumber, AnyNumber, AnyNumber] = IMAGENET_MEAN
    """Mean RGB, subtracted from pixels in 0..1."""
    std: tuple[Rate, Rate, Rate] = IMAGENET_STD
    """Standard deviation of RGB, by which pixels are divided."""


class ViT(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: tubelets to tokens, fixed sine-cosine positions, pre-norm blocks.

    Dosovitskiy et al. 2021, with the tubelets of Arnab et al. 2021 and VideoMAE's details: queries and
    values have a bias and keys none, no class token. ``final_norm`` normalises the last tokens (pretraining);
    a classifier that pools first and normalises then leaves it out.
    """

    def __init__(self, config: ViTArchitecture, *, final_norm: bool = True) -> None:
        super().__init__()
        self.width = width = config.width
        self.depth = depth = config.depth
        self.patch_size = config.patch_size
        self.position_kind = config.positions
        self.grid = grid_of_tiles(config.num_frames, config.size, config.patch_size)
        self.embed = PatchEmbed(width, config.patch_size, mean=config.mean, std=config.std)
        self.register_buffer("positions", fixed_positions(config.positions, self.grid, width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                qkv_bias="no_key",
                drop_path=config.drop_path * i / max(1, depth - 1),
                norm_eps=config.norm_eps,
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps) if final_norm else nn.Identity()
        self.apply(init_glorot)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        ``visible`` (``B K``, indices into the grid) encodes those tubelets alone: the others are dropped before any
        work is done on them, and the tokens are ``B K D``.
        """
        tokens, seen = run_blocks(self.blocks, self.embedded(video, visible), layers)
        return Features(self.norm(tokens), self.grid, tuple(seen))

    def embedded(self, video: Tensor, visible: Tensor | None = None) -> Tensor:
        """The tokens that the first block sees, ``B N D``, or ``B K D`` at ``visible`` positions.

        Raises:
            ValueError: the video has another size than the network was built for.
        """
        check_video(video, multiple=self.patch_size)
        provided = tuple(size // p for size, p in zip((video.shape[1], *video.shape[3:]), self.patch_size))
        if provided != self.grid:
            raise ValueError(
                f"this network was built for a grid of {tuple(self.grid)} tubelets of {self.patch_size} pixels, "
                f"got {provided}: cut clips of the size that it was built for"
            )
        tokens = self.embed(video, visible)
        positions = self.positions if visible is None else self.positions[visible]
        return tokens + positions.to(tokens.dtype)

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
    r"(?:decoder|down|mask_token|pos_embed)_(?:img|vid)(?:\..*)?",
    r"pos_embed",
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


def grid_of_tiles(num_frames: int, size: int, patch_size: Sequence[int]) -> Grid:
    """The grid of the patches of a clip.

    Raises:
        ValueError: patches do not tile the clip; names both.
    """
    if any(extent % p for extent, p in zip((num_frames, size, size), patch_size)):
        raise ValueError(f"clips of {num_frames} x {size} x {size} are not a multiple of patches {tuple(patch_size)}")
    return Grid(*(extent // p for extent, p in zip((num_frames, size, size), patch_size)))
