"""A transformer autoencoder of video in blocks, each coded by however many tokens one likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import KVCache
from filmstrip.nn.block import Block
from filmstrip.nn.masks import block_causal
from filmstrip.nn.patches import PatchEmbed, unpatchify
from filmstrip.nn.rotary import Rotary
from filmstrip.protocols import Grid, check_video

_NORM_EPS = 1e-5
_DEVIATION = 0.02  # of initial weights


class BlockTransformer(nn.Module):
    """Transformer blocks over a sequence of blocks of tokens: a token sees its own block and those before it.

    Rotary positions along the flat sequence. With ``caches``, one for each layer, tokens go on after those in there.
    """

    def __init__(
        self, *, width: int, depth: int, num_heads: int, mlp_ratio: float, tokens_per_block: int, rope_base: float
    ) -> None:
        super().__init__()
        self.tokens_per_block = tokens_per_block
        self.rotary = Rotary(width // num_heads, base=rope_base)
        self.blocks = nn.ModuleList(
            Block(width, num_heads, mlp_ratio=mlp_ratio, qkv_bias="none", norm_eps=_NORM_EPS, kind="llama")
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=_NORM_EPS)

    def forward(self, tokens: Tensor, caches: Sequence[KVCache] | None = None) -> Tensor:
        """``B N D -> B N D``, normalised."""
        start = caches[0].length if caches else 0
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        angles = self.rotary(places[:, None])
        mask = block_causal(self.tokens_per_block)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, mask=mask, angles=angles, cache=caches[i] if caches else None)
        return self.norm(tokens)

    def caches(self, batch: int, num_blocks: int) -> list[KVCache]:
        """Empty caches with room for ``num_blocks`` blocks."""
        weight = self.norm.weight
        heads = self.blocks[0].attention
        room = num_blocks * self.tokens_per_block
        return [
            KVCache(batch, heads.num_heads, room, heads.head_dim, dtype=weight.dtype, device=weight.device)
            for _ in self.blocks
        ]


@dataclass
class Past:
    """What encoder and decoder remember of the blocks of a video that they have seen."""

    encoder: list[KVCache]
    decoder: list[KVCache]

    @property
    def length(self) -> int:
        """Tokens remembered."""
        return self.encoder[0].length

    def rewind(self, length: int) -> None:
        """Forget all tokens but the first ``length``, to try a block again."""
        for cache in (*self.encoder, *self.decoder):
            cache.rewind(length)


class ElasticAutoencoder(nn.Module):
    """An :class:`~filmstrip.objectives.tokenizing.Autoencoder` of blocks of ``block_frames`` frames.

    One token a cube of pixels. The encoder is told which tokens will be kept, by one of two embeddings added to every
    token, so that it can move what matters into those; the decoder sees zeros in place of the others.
    Yan et al. 2025 (ElasticTok).
    """

    def __init__(
        self,
        *,
        input_dim: int,
        latent_dim: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        block_frames: int,
        size: int,
        patch_size: Sequence[int],
        rope_base: float,
    ) -> None:
        super().__init__()
        p, q, r = self.patch_size = tuple(patch_size)
        if block_frames % p or size % q or size % r:
            raise ValueError(f"blocks of {block_frames} x {size} x {size} are not a multiple of {self.patch_size}")
        self.block_frames, self.size = block_frames, size
        self.block_grid = Grid(block_frames // p, size // q, size // r)
        self.tokens_per_block = self.block_grid.t * self.block_grid.h * self.block_grid.w
        inner = {
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "tokens_per_block": self.tokens_per_block,
            "rope_base": rope_base,
        }
        self.embed = PatchEmbed(width, self.patch_size, mean=(0.5,) * 3, std=(0.5,) * 3, bias=False)
        self.fate = nn.Embedding(2, width)  # dropped, kept
        self.encoder = BlockTransformer(**inner)
        self.to_latents = nn.Linear(width, input_dim, bias=False)
        self.from_latents = nn.Linear(latent_dim, width, bias=False)
        self.decoder = BlockTransformer(**inner)
        self.to_pixels = nn.Linear(width, p * q * r * 3, bias=False)
        self.apply(_init)

    def start(self, batch: int, num_blocks: int) -> Past:
        """An empty memory with room for videos of ``num_blocks`` blocks."""
        return Past(self.encoder.caches(batch, num_blocks), self.decoder.caches(batch, num_blocks))

    def encode(self, video: Tensor, kept: Tensor | None = None, past: Past | None = None) -> Tensor:
        """Latents ``B t h w D`` of ``B T C H W`` video, of which the tokens at ``kept`` (``B N``, bool) will remain.

        With ``past``, the video goes on after the blocks remembered there, and is remembered.

        Raises:
            ValueError: the video is not made of whole blocks.
        """
        tokens = self.embed_kept(video, kept)
        latents = self.to_latents(self.encoder(tokens, past.encoder if past else None))
        grid = self.block_grid
        return rearrange(latents, "b (t h w) d -> b t h w d", h=grid.h, w=grid.w)

    def embed_kept(self, video: Tensor, kept: Tensor | None = None) -> Tensor:
        """The encoder's input ``B N D``: embedded cubes that know whether they will be kept."""
        check_video(video, multiple=self.patch_size)
        if video.shape[1] % self.block_frames or tuple(video.shape[3:]) != (self.size, self.size):
            raise ValueError(
                f"this network codes blocks of {self.block_frames} frames of {self.size} x {self.size}, got "
                f"{video.shape[1]} frames of {video.shape[3]} x {video.shape[4]}"
            )
        tokens = self.embed(video)
        # A product, not a look-up: both embeddings then always have a gradient, and nothing is scattered.
        share = torch.ones_like(tokens[..., :1]) if kept is None else kept[..., None].to(tokens.dtype)
        dropped, remains = self.fate.weight.to(tokens.dtype)
        return tokens + dropped + share * (remains - dropped)

    def decode(self, latents: Tensor, past: Past | None = None) -> Tensor:
        """Pixels ``B T C H W`` in 0..1 of latents ``B t h w D``, zero where they were dropped.

        Raises:
            ValueError: the latents are not those of whole blocks.
        """
        grid = Grid(*latents.shape[1:4])
        if grid.t % self.block_grid.t or grid[1:] != self.block_grid[1:]:
            raise ValueError(f"this network codes blocks on a grid of {tuple(self.block_grid)}, got {tuple(grid)}")
        tokens = self.from_latents(rearrange(latents, "b t h w d -> b (t h w) d"))
        cubes = self.to_pixels(self.decoder(tokens, past.decoder if past else None)).tanh().add(1).div(2)
        return unpatchify(rearrange(cubes, "b n (p c) -> b n p c", c=3), grid, self.patch_size)


def _init(module: nn.Module) -> None:
    """Normal weights, as in LLaMA."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=_DEVIATION)
