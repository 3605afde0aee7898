"""The image side of two-tower models of images and text: a transformer of each frame alone, as in CLIP and SigLIP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.models.query_transformer import QueryPooling, QueryPoolingConfig
from filmstrip.models.video_transformer import TransformerArchitecture, blocks_of, layer_of
from filmstrip.models.vit import grid_of_tiles
from filmstrip.nn.block import Block, run_blocks
from filmstrip.nn.initialisation import STD, init_linear
from filmstrip.nn.masks import Mask, present, readable
from filmstrip.nn.patches import NativeFrames, PatchEmbed
from filmstrip.nn.positions import resized, resized_whole
from filmstrip.protocols import Features, Grid, Layout, check_video


@dataclass(frozen=True, kw_only=True)
class ImageTowerArchitecture(TransformerArchitecture):
    """The configuration of an :class:`ImageTower`; ``num_frames`` is that of the clips, which may have any length."""

    pool: Literal["probe", "class", "none"] = "probe"
    """Vector of a frame: what a learned query attends to (``probe``, SigLIP), or a class token (``class``, CLIP), or
    none (``none``, Qwen-VL)."""
    final_norm: bool = True
    """Whether the last tokens are normalised."""
    norm_before: bool = False
    """Whether tokens are normalised before the first block (CLIP)."""
    patch_bias: bool = True
    """Whether the projection of patches has a bias."""


class NativeFeatures(NamedTuple):
    """Features of clips whose frames differ in size."""

    tokens: Tensor
    """Tokens of each frame, padded at the end, ``B T N D``."""
    valid: Tensor
    """Whether a token is no padding, ``B N`` bool."""
    summary: Tensor
    """Vectors of the frames, ``B T D``."""


class ImageTower(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` that sees each frame alone; its summary, if any, is a vector of each.

    Dosovitskiy et al. 2021. Clips may have any length. ``layouts`` are those of the model that the tower is part of.
    A tower that ``resizes`` takes frames of any whole patches, of one size (:meth:`forward`) or of several in a batch
    (:meth:`native`): its positions are interpolated (SigLIP 2).
    """

    frames_apart = True
    """Whether each frame, or group of as many as a patch has, is encoded by itself."""

    def __init__(
        self, config: ImageTowerArchitecture, layouts: tuple[Layout, ...] = (), *, resizes: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.width = width = config.width
        self.depth = config.depth
        self.patch_size = config.tubelet
        self.grid = grid_of_tiles(config.num_frames, config.size, config.tubelet)
        self._layouts = layouts
        self.resizes = resizes
        self.embed = PatchEmbed(width, config.tubelet, mean=config.mean, std=config.std, bias=config.patch_bias)
        with_class = config.pool == "class"
        if resizes and config.pool != "probe":
            raise ValueError("positions are resized where a probe reads a frame, not beside a class token")
        self.cls_token = nn.Parameter(torch.zeros(width)) if with_class else None
        self.pos_embed = nn.Parameter(torch.zeros(with_class + self.grid.h * self.grid.w, width))
        self.norm_before = nn.LayerNorm(width, eps=config.norm_eps) if config.norm_before else nn.Identity()
        self.blocks = blocks_of(Block, config)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.pool = QueryPooling(_probe(config)) if config.pool == "probe" else None
        init_linear(self, config.linear_init)
        for positions in (self.cls_token, self.pos_embed):
            if positions is not None:
                nn.init.trunc_normal_(positions, std=STD)

    def forward(
        self, video: Tensor, layers: bool = False, *, hidden: tuple[Tensor, Tensor] | None = None
    ) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``, with the frames' vectors (``B T D``), if any, as summary.

        ``hidden`` are which patches of a frame are masked, ``B n`` bool, and the vector (``D``) in their place.

        Raises:
            ValueError: the frames have another size than the network was built for, and it does not resize.
        """
        check_video(video, multiple=self.patch_size)
        grid = Grid(*(n // p for n, p in zip((video.shape[1], *video.shape[3:]), self.patch_size)))
        positions = self._positions(grid)
        x = rearrange(self.embed(video), "b (t p) d -> (b t) p d", t=grid.t)
        if hidden is not None:
            masked, vector = hidden
            x = torch.where(masked.repeat_interleave(grid.t, dim=0)[..., None], vector.to(x.dtype), x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], 1, -1).to(x.dtype), x], dim=1)
        x = self.norm_before(x + positions)
        x, seen = run_blocks(self.blocks, x, layers)
        x = self.norm(x)
        first = 0 if self.cls_token is None else 1
        vectors = self.pool(x)[:, 0] if self.pool is not None else x[:, 0] if first else None
        summary = None if vectors is None else rearrange(vectors, "(b t) d -> b t d", t=grid.t)
        first_tokens = [rearrange(each[:, 0], "(b t) d -> b t d", t=grid.t) for each in seen] if first else []
        tokens, *seen = (rearrange(each[:, first:], "(b t) p d -> b (t p) d", t=grid.t) for each in (x, *seen))
        return Features(tokens, grid, tuple(seen), summary, tuple(first_tokens))

    def native(self, video: Tensor, frames: NativeFrames) -> NativeFeatures:
        """Encode ``B T C H W`` video whose clips have frames of their own sizes; padding is read by no token.

        Raises:
            ValueError: the network does not resize.
        """
        if not self.resizes or self.pool is None:
            raise ValueError("this network reads frames of one size: SigLIP 2 (language.siglip2) reads any")
        check_video(video, multiple=self.patch_size)
        x = self.embed.native(video, frames)
        grid = (self.grid.h, self.grid.w)
        places, grids = frames.places(self.patch_size), frames.grids(self.patch_size)
        x = x + resized(self.pos_embed, grid, places, grids)[:, None].to(x.dtype)
        steps, valid = x.shape[1], frames.valid()
        repeated = valid.repeat_interleave(steps, dim=0)
        mask: Mask = present(repeated)
        x = x.flatten(0, 1)
        for block in self.blocks:
            x = block(x, mask=mask)
        x = self.norm(x)
        vectors = self.pool(x, mask=readable(repeated))[:, 0]
        return NativeFeatures(x.unflatten(0, (-1, steps)), valid, vectors.unflatten(0, (-1, steps)))

    def _positions(self, grid: Grid) -> Tensor:
        """Learned positions of the patches of a frame."""
        own = (self.grid.h, self.grid.w)
        if (grid.h, grid.w) == own:
            return self.pos_embed
        if not self.resizes:
            raise ValueError(
                f"this network was built for frames of {self.grid.h} x {self.grid.w} patches, got "
                f"{grid.h} x {grid.w}: cut clips of the size that it was built for"
            )
        return resized_whole(self.pos_embed, own, (grid.h, grid.w))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the embedding, ``i + 1`` for block ``i``, then the norm and the pool."""
        return self.depth + 1 if name.startswith("pool.") else layer_of(name, self.depth + 1)

    def layouts(self) -> tuple[Layout, ...]:
        """Those of the model that the tower is part of."""
        return self._layouts


def _probe(config: ImageTowerArchitecture) -> QueryPoolingConfig:
    """SigLIP's pooling head: one query, without norms, and a feed-forward network (Zhai et al. 2022)."""
    return QueryPoolingConfig(
        num_queries=1,
        width=config.width,
        num_heads=config.num_heads,
        context_width=config.width,
        norms=False,
        mlp_dim=round(config.width * config.mlp_ratio),
        gelu=config.gelu,
        norm_eps=config.norm_eps,
    )
