"""V-JEPA's encoder (V-JEPA, V-JEPA 2 and 2.1), with the positions and blocks that its predictors share."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate
from filmstrip.errors import UserError
from filmstrip.models.vit import grid_of_tiles
from filmstrip.models.vjepa_layouts import layouts
from filmstrip.nn.attention import Attention
from filmstrip.nn.block import Block
from filmstrip.nn.initialisation import LinearInit, init_linear
from filmstrip.nn.masks import Mask
from filmstrip.nn.patches import PatchEmbed
from filmstrip.nn.rotary import grid_positions
from filmstrip.protocols import Features, Grid, Layout, check_video

PositionKind = Literal["sincos", "rotary", "paired_rotary"]
IMAGE_VECTOR_STD = 1e-6
"""Standard deviation of the initial vectors that tell images and videos apart, as published."""


@dataclass(frozen=True, kw_only=True)
class VJEPAArchitecture:
    """Sizes and parts of the encoder."""

    width: Count = 1024
    depth: Count = 24
    num_heads: Count = 16
    mlp_ratio: Rate = 4.0
    num_frames: Count = 16
    size: Count = 256
    patch_size: tuple[Count, Count, Count] = (2, 16, 16)
    positions: PositionKind = "rotary"
    """Positions of tokens in encoder and predictor: ``sincos`` vectors that are added (V-JEPA), ``rotary`` embeddings
    of queries and keys (V-JEPA 2), or ``paired_rotary`` ones, whose two channels of a pair share a frequency (V-JEPA
    2.1)."""
    position_range: CountOrZero = 0
    """Number of rows and columns whose range the positions of any frame are scaled to; zero for no scaling."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""
    feature_layers: tuple[Count, ...] = ()
    """Numbers of the blocks whose outputs, each with a norm of its own, are predicted side by side, ascending and
    ending with the last block; empty for the last block alone."""
    image_tokens: bool = False
    """Whether a clip of one frame is an image, whose patches have an embedding of their own, and learnt vectors tell
    tokens of images and of videos apart."""

    def check_layers(self) -> None:
        """See that the layers of features are blocks in order, the last one included.

        Raises:
            UserError: they are not.
        """
        layers = self.feature_layers
        if layers and (list(layers) != sorted(set(layers)) or layers[-1] != self.depth):
            raise UserError(
                f"feature_layers {layers} must ascend and end with the last of {self.depth} blocks: set them with "
                "depth"
            )

    @property
    def feature_width(self) -> int:
        """Channels of all layers of features together."""
        return self.width * max(1, len(self.feature_layers))


class Positions(nn.Module):
    """The positions of tokens: vectors to add to them, or rotary angles of each channel of a head."""

    def __init__(self, kind: PositionKind, grid: Grid, width: int, num_heads: int, span: int = 0) -> None:
        super().__init__()
        self.kind = kind
        self.grid = grid
        self.span = span
        if kind == "sincos":
            self.register_buffer("table", sincos_of_grid(grid, width), persistent=False)
            return
        head_dim = width // num_heads
        share = head_dim // 3 // 2 * 2  # channels of an axis; the last ones of a head may be left over
        if not share:
            raise ValueError(f"rotary positions need heads of 6 channels or more, got {head_dim}")
        ladder = 10_000.0 ** (-torch.arange(share // 2, dtype=torch.float32) / (share // 2))
        rest = head_dim - 3 * share
        ladder = ladder.repeat(6) if kind == "rotary" else ladder.repeat_interleave(2).repeat(3)
        self.register_buffer("frequencies", F.pad(ladder, (0, rest)), persistent=False)
        axis = torch.arange(3).repeat_interleave(share, output_size=3 * share)
        self.register_buffer("axis", F.pad(axis, (0, rest)), persistent=False)

    def forward(self, tokens: Tensor, grid: Grid, index: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens ``B N D`` at all positions of a grid, or at ``index`` (``B N``), as blocks take them; and the
        further arguments of blocks.

        Raises:
            ValueError: sine-cosine vectors are those of another grid.
        """
        if self.kind == "sincos":
            if grid != self.grid:
                raise ValueError(
                    f"this network was built for a grid of {tuple(self.grid)} tubelets, got {tuple(grid)}: cut clips "
                    "of the size that it was built for"
                )
            table = self.table if index is None else self.table[index]
            return tokens + table.to(tokens.dtype), ()
        places = grid_positions(grid, tokens.device).to(torch.float32)
        if index is not None:
            places = places[index]
        return tokens, (self.angles(places, grid),)

    def angles(self, places: Tensor, grid: Grid) -> Tensor:
        """Rotary angles ``... head_dim`` of places ``... 3`` (time, row, column) of frames of a grid's size."""
        if self.span:
            steps = (1.0, *((self.span - 1) / max(sides - 1, 1) for sides in grid[1:]))
            places = places * torch.tensor(steps, device=places.device)
        return places[..., self.axis] * self.frequencies


def sincos_of_grid(grid: Grid, width: int) -> Tensor:
    """Sines and cosines of time, height and width side by side, ``N width``, float32.

    Each axis has a third of the channels, rounded up to an even number (the last ones are cut off): first all of its
    sines, then its cosines.
    """
    share = -(-width // 6) * 2
    ladder = 10_000.0 ** (-torch.arange(share // 2, dtype=torch.float64) / (share // 2))
    angles = grid_positions(grid).to(torch.float64)[:, :, None] * ladder
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return table[:, :width].to(torch.float32)


class RotaryAttention(Attention):
    """Self-attention whose queries and keys are turned by an angle for each channel.

    Neighbouring channels make a pair. In V-JEPA 2 channels ``i`` and ``i + share / 2`` of an axis share a frequency,
    so that the two of a pair differ in it: the released weights were trained so. In V-JEPA 2.1 the two share one.
    """

    def forward(self, x: Tensor, angles: Tensor, mask: Mask | None = None) -> Tensor:
        """``B N D -> B N D``, with an angle for each channel of a head: ``N head_dim`` or ``B N head_dim``."""
        q, k, v = self._project(x, None)
        if angles.ndim == 3:
            angles = rearrange(angles, "b n d -> b 1 n d")
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        q, k = (y * cos + _quarter_turn(y) * sin for y in (q, k))
        return self.out(rearrange(self.attend(q, k, v, mask), "b h n d -> b n (h d)"))


def _quarter_turn(x: Tensor) -> Tensor:
    """Pairs of neighbouring channels ``(a, b)`` as ``(-b, a)``."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    return torch.stack([-second, first], dim=-1).flatten(-2)


class RotaryBlock(Block):
    """A pre-norm block with :class:`RotaryAttention`: ``B N D -> B N D``."""

    def __init__(self, width: int, num_heads: int, *, mlp_ratio: float = 4.0) -> None:
        super().__init__(width, num_heads, mlp_ratio=mlp_ratio)
        self.attention = RotaryAttention(width, num_heads)

    def forward(self, x: Tensor, angles: Tensor, mask: Mask | None = None) -> Tensor:
        """Apply the block."""
        x = x + self.attention(self.norm1(x), angles, mask)
        return x + self.mlp(self.norm2(x))


def blocks_of(kind: PositionKind, depth: int, width: int, num_heads: int, mlp_ratio: float) -> nn.ModuleList:
    """Blocks for positions of a kind."""
    block = Block if kind == "sincos" else RotaryBlock
    return nn.ModuleList(block(width, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))


@torch.no_grad()
def initialise(network: nn.Module, start: LinearInit) -> None:
    """Random weights; those of a block's last layers, whose outputs join the tokens, are smaller the deeper it is."""
    init_linear(network, start)
    for i, block in enumerate(network.blocks, 1):
        for layer in (block.attention.out, block.mlp.fc2):
            layer.weight /= (2 * i) ** 0.5


class VJEPAEncoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: tubelets to tokens, pre-norm blocks with biases, a last norm."""

    def __init__(self, config: VJEPAArchitecture) -> None:
        super().__init__()
        self.width = config.width
        self.depth = config.depth
        self.patch_size = tuple(config.patch_size)
        self.grid = grid_of_tiles(config.num_frames, config.size, self.patch_size)
        self.embed = PatchEmbed(config.width, self.patch_size)
        self.positions = Positions(config.positions, self.grid, config.width, config.num_heads, config.position_range)
        self.blocks = blocks_of(config.positions, config.depth, config.width, config.num_heads, config.mlp_ratio)
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.feature_layers = tuple(config.feature_layers) or (config.depth,)
        norms = (nn.LayerNorm(config.width, eps=1e-6) for _ in self.feature_layers[:-1])
        self.level_norms = nn.ModuleList(norms)  # that of the last block is ``norm``
        self.has_images = config.image_tokens
        if config.image_tokens:
            self.image_embed = PatchEmbed(config.width, (1, *self.patch_size[1:]))
            self.image_vector = nn.Parameter(torch.randn(1, 1, config.width) * IMAGE_VECTOR_STD)
            self.video_vector = nn.Parameter(torch.randn(1, 1, config.width) * IMAGE_VECTOR_STD)
        initialise(self, config.linear_init)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        ``visible`` (``B K``, indices into the grid) encodes those positions alone: the others are dropped before any
        work is done on them, and the tokens are ``B K D``. With rotary positions clips may have any size.
        """
        tokens, seen, grid = self._run(video, visible, range(1, self.depth + 1) if layers else ())
        return Features(self.norm(tokens), grid, tuple(seen))

    def features(self, video: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Grid]:
        """The outputs of all ``feature_layers``, normalised, side by side: ``B N (L D)``, and their grid."""
        tokens, seen, grid = self._run(video, visible, self.feature_layers[:-1])
        levels = [norm(level) for norm, level in zip(self.level_norms, seen)]
        return torch.cat([*levels, self.norm(tokens)], dim=2) if levels else self.norm(tokens), grid

    def _run(self, video: Tensor, visible: Tensor | None, kept: Collection[int]) -> tuple[Tensor, list[Tensor], Grid]:
        """The last block's output, those of the blocks whose numbers are ``kept``, and the grid."""
        image = self.has_images and video.shape[1] == 1
        embed = self.image_embed if image else self.embed
        check_video(video, multiple=embed.patch_size)
        grid = Grid(*(size // p for size, p in zip((video.shape[1], *video.shape[3:]), embed.patch_size)))
        tokens = embed(video, visible)
        if self.has_images:
            tokens = tokens + (self.image_vector if image else self.video_vector)
        tokens, where = self.positions(tokens, grid, visible)
        seen = []
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens, *where)
            if number in kept:
                seen.append(tokens)
        return tokens, seen, grid

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the embedding, ``i + 1`` for block ``i``."""
        block = re.match(r"blocks\.(\d+)\.", name)
        if block:
            return int(block[1]) + 1
        return 0 if name.startswith(("embed.", "image_", "video_")) else self.depth + 1

    def layouts(self) -> tuple[Layout, ...]:
        """Those of the authors' training and of the Hub, each with predictor and teacher."""
        return layouts(self.patch_size, len(self.feature_layers))
