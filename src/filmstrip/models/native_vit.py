"""A vision transformer for frames of any size: rotary positions of rows and columns, attention within a frame.

The tower of Qwen2-VL (Wang et al. 2024), with the layer that merges neighbouring tokens. The rule that says at which
size a frame enters is in :mod:`filmstrip.video.geometry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, Rate
from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.nn.block import Block
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.masks import present
from filmstrip.nn.mlp import GELU, MLP
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.nn.patches import NativeFrames, PatchEmbed, conv_to_linear, linear_to_conv
from filmstrip.nn.rotary import Rotary, grid_positions
from filmstrip.protocols import Features, Grid, check_video
from filmstrip.weights.keymap import KeyMap, Weights, check_names
from filmstrip.weights.layers import layers


@dataclass(frozen=True, kw_only=True)
class NativeViTConfig:
    """Sizes and parts of a :class:`NativeViT`."""

    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    mlp_dim: Count
    """Inner width of the feed-forward networks."""
    patch_size: tuple[Count, Count, Count]
    """Frames, height and width of a tubelet."""
    patch_bias: bool = False
    """Whether the layer that embeds tubelets has a bias."""
    final_norm: bool = False
    """Whether the last tokens are normalised."""
    gelu: GELU = "quick"
    """Nonlinearity of the feed-forward networks."""
    rope_base: Rate = 10_000.0
    """Base of the wavelengths of rotary embeddings."""
    norm_eps: Rate = 1e-6
    """Constant added to the variance in normalisations."""
    mean: tuple[AnyNumber, AnyNumber, AnyNumber] = CLIP_MEAN
    """Mean RGB, subtracted from pixels in 0..1."""
    std: tuple[Rate, Rate, Rate] = CLIP_STD
    """Standard deviation of RGB, by which pixels are divided."""


class NativeViT(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of frames whose sides are multiples of a patch's.

    Tubelets take in ``patch_size[0]`` frames; the last frame is repeated where these do not divide the clip, so a
    still image is that many identical frames. Tokens attend to those of their own time step.
    """

    def __init__(self, config: NativeViTConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.depth, self.patch_size = config.width, config.depth, config.patch_size
        self.embed = PatchEmbed(
            config.width, config.patch_size, mean=config.mean, std=config.std, bias=config.patch_bias
        )
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.num_heads,
                mlp_ratio=config.mlp_dim / config.width,
                norm_eps=config.norm_eps,
                gelu=config.gelu,
            )
            for _ in range(config.depth)
        )
        self.rotary = Rotary(config.width // config.num_heads, axes=2, base=config.rope_base)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.apply(init_normal)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        Raises:
            ValueError: patches do not tile a frame.
        """
        check_video(video, multiple=(1, *self.patch_size[1:]))
        if short := -video.shape[1] % self.patch_size[0]:
            video = torch.cat([video, video[:, -1:].expand(-1, short, -1, -1, -1)], dim=1)
        grid = Grid(*(size // p for size, p in zip((video.shape[1], *video.shape[3:]), self.patch_size)))
        angles = self.rotary(grid_positions((grid.h, grid.w), video.device))
        x = rearrange(self.embed(video), "b (t n) d -> (b t) n d", t=grid.t)
        seen = []
        for block in self.blocks:
            x = block(x, angles=angles)
            if layers:
                seen.append(x)
        x, *seen = (rearrange(y, "(b t) n d -> b (t n) d", t=grid.t) for y in (self.norm(x), *seen))
        return Features(x, grid, tuple(seen))

    def native(self, video: Tensor, frames: NativeFrames) -> Tensor:
        """Tokens ``B T N D`` of clips whose frames differ in size; those of padding come last, and nothing reads
        them."""
        if short := -video.shape[1] % self.patch_size[0]:
            video = torch.cat([video, video[:, -1:].expand(-1, short, -1, -1, -1)], dim=1)
        x = self.embed.native(video, frames)
        steps = x.shape[1]
        angles = self.rotary(frames.places(self.patch_size)).repeat_interleave(steps, dim=0)
        mask = present(frames.valid().repeat_interleave(steps, dim=0))
        x = x.flatten(0, 1)
        for block in self.blocks:
            x = block(x, angles=angles, mask=mask)
        return self.norm(x).unflatten(0, (-1, steps))


@dataclass(frozen=True, kw_only=True)
class TileMergerConfig(ConnectorConfig):
    """Squares of neighbouring tokens become one."""

    side: Count = 2
    """Number of rows and columns of a square."""

    def build(self, visual_width: int, width: int) -> TileMerger:
        """Build the connector with fresh weights."""
        return TileMerger(visual_width, width, side=self.side)


class TileMerger(Connector):
    """Squares of neighbouring tokens become one of another width: normalised, side by side, through two layers."""

    def __init__(self, width: int, outputs: int, *, side: int = 2, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(side**2 * width, side**2 * width, outputs)
        self.apply(init_normal)

    def merged(self, grid: Grid) -> Grid:
        """The grid of squares.

        Raises:
            ValueError: squares do not tile the grid.
        """
        if grid.h % self.side or grid.w % self.side:
            raise ValueError(f"squares of {self.side} x {self.side} tokens do not tile a grid of {tuple(grid)}")
        return Grid(grid.t, grid.h // self.side, grid.w // self.side)

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip whose visual tokens lie on a grid."""
        return math.prod(self.merged(grid))

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """``B N D`` on a grid, to ``B N/side^2 outputs`` in the order of squares."""
        t, h, w = self.merged(grid)
        rows = rearrange(
            self.norm(tokens),
            "b (t h p w q) d -> b (t h w) (p q d)",
            t=t,
            h=h,
            w=w,
            p=self.side,
            q=self.side,
        )
        return self.mlp(rows)

    def native(self, tokens: Tensor, grids: Tensor) -> Tensor:
        """``B T N D`` of frames that differ in size, on grids ``B 2`` (rows, columns), to ``B T N/side^2 outputs``.

        Each frame's squares are in order, then comes padding.
        """
        merged = (grids // self.side).clamp(min=1)
        square = torch.arange(tokens.shape[2] // self.side**2, device=tokens.device)
        square = torch.minimum(square, merged.prod(dim=1, keepdim=True) - 1)
        row, column = square // merged[:, 1:] * self.side, square % merged[:, 1:] * self.side
        inner = grid_positions((self.side, self.side), tokens.device)
        places = (row[..., None] + inner[:, 0]) * grids[:, 1, None, None] + column[..., None] + inner[:, 1]
        index = places.flatten(1)[:, None, :, None].expand(-1, tokens.shape[1], -1, tokens.shape[3])
        return self.mlp(self.norm(tokens).gather(2, index).unflatten(2, (-1, self.side**2)).flatten(3))


_BLOCK = (
    ("norm1.weight", "norm1.weight"),
    ("norm1.bias", "norm1.bias"),
    ("attn.qkv.weight", "attention.qkv.weight"),
    ("attn.qkv.bias", "attention.qkv.bias"),
    ("attn.proj.weight", "attention.out.weight"),
    ("attn.proj.bias", "attention.out.bias"),
    ("norm2.weight", "norm2.weight"),
    ("norm2.bias", "norm2.bias"),
    ("mlp.fc1.weight", "mlp.fc1.weight"),
    ("mlp.fc1.bias", "mlp.fc1.bias"),
    ("mlp.fc2.weight", "mlp.fc2.weight"),
    ("mlp.fc2.bias", "mlp.fc2.bias"),
)
TOWER = KeyMap((("patch_embed.proj.weight", "embed.proj.weight"), *layers("blocks", "blocks", _BLOCK)))
"""Qwen2-VL's tower, to a :class:`NativeViT`; patches are embedded by a convolution there (:func:`from_tower`)."""
_OURS = ("norm.weight", "norm.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias")
_MERGED = tuple(f"merger.{layer}.{kind}" for layer in ("ln_q", "mlp.0", "mlp.2") for kind in ("weight", "bias"))
"""Names of Qwen2-VL's merger; those of a :class:`TileMerger` in the same order are ``_OURS``."""


def from_tower(theirs: Mapping[str, Tensor]) -> tuple[Weights, Weights]:
    """The weights of a :class:`NativeViT` and of a :class:`TileMerger` from those of Qwen2-VL's tower.

    Raises:
        UserError: it has a name that no such tower has.
    """
    merging = {name: tensor for name, tensor in theirs.items() if name.startswith("merger.")}
    tower = TOWER.ours({name: tensor for name, tensor in theirs.items() if name not in merging})
    tower["embed.proj.weight"] = conv_to_linear(tower["embed.proj.weight"])
    check_names("the merger of this state", merging, _MERGED)
    return tower, {name: merging[source] for name, source in zip(_OURS, _MERGED, strict=True)}


def to_tower(tower: Mapping[str, Tensor], merger: Mapping[str, Tensor], patch_size: tuple[int, int, int]) -> Weights:
    """The inverse of :func:`from_tower`."""
    theirs = TOWER.theirs(tower)
    theirs["patch_embed.proj.weight"] = linear_to_conv(theirs["patch_embed.proj.weight"], patch_size)
    return theirs | {source: merger[name] for name, source in zip(_OURS, _MERGED, strict=True)}
