"""ElasticTok's network, its loss and its search for lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate, Share, Weight
from filmstrip.errors import UserError
from filmstrip.nn.attention import KVCache
from filmstrip.nn.block import Block
from filmstrip.nn.gaussian import Gaussian
from filmstrip.nn.length_search import Method, Search
from filmstrip.nn.masks import block_causal
from filmstrip.nn.patches import PatchEmbed, take, unpatchify
from filmstrip.nn.quantise import Bottleneck, Quantised, usage
from filmstrip.nn.rotary import Rotary
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.objectives.elastic import Distance, Fitted, mean_squared_error
from filmstrip.objectives.perceptual import load_perceptual
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Grid, Loss, Tokens, as_float, check_video
from filmstrip.randomness import uniform
from filmstrip.systems.tokenizers.elastictok.weights import from_elastictok
from filmstrip.weights.keymap import Weights

_NORM_EPS = 1e-5
_DEVIATION = 0.02  # of initial weights


class BlockTransformer(nn.Module):
    """Transformer blocks over a sequence of blocks of tokens: a token sees its own block and those before it.

    Rotary positions along the flat sequence. With ``caches``, one for each layer, tokens go on after those in there.
    """

    def __init__(self, config: ElasticTokConfig) -> None:
        super().__init__()
        self.tokens_per_block = config.tokens_per_block
        width, heads = config.width, config.num_heads
        self.rotary = Rotary(width // heads, base=config.rope_base)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=config.mlp_ratio, qkv_bias="none", norm_eps=_NORM_EPS, kind="llama")
            for _ in range(config.depth)
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

    frames_apart = False

    def __init__(self, config: ElasticTokConfig, input_dim: int, latent_dim: int) -> None:
        super().__init__()
        width = config.width
        frames, size = self.block_frames, self.size = config.block_frames, config.size
        p, q, r = self.patch_size = config.patch_size
        if frames % p or size % q or size % r:
            raise ValueError(f"blocks of {frames} x {size} x {size} are not a multiple of {self.patch_size}")
        self.block_grid = config.block_grid
        self.tokens_per_block = config.tokens_per_block
        self.embed = PatchEmbed(width, self.patch_size, mean=(0.5,) * 3, std=(0.5,) * 3, bias=False)
        self.fate = nn.Embedding(2, width)  # dropped, kept
        self.encoder = BlockTransformer(config)
        self.to_latents = nn.Linear(width, input_dim, bias=False)
        self.from_latents = nn.Linear(latent_dim, width, bias=False)
        self.decoder = BlockTransformer(config)
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


class ElasticTok(TokenizerObjective):
    """Squared and perceptual error of videos of which each block keeps a random number of tokens.

    An :class:`~filmstrip.objectives.elastic.ElasticTokenizer`.
    """

    requires = ("video", "seed")
    training_only = ("perceptual",)

    def __init__(self, config: ElasticTokConfig) -> None:
        bottleneck = config.build_bottleneck()
        super().__init__(ElasticAutoencoder(config, bottleneck.input_dim, bottleneck.latent_dim), bottleneck)
        places = config.tokens_per_block
        least, most = self.min_tokens, self.max_tokens = config.min_tokens, config.max_tokens or places
        if not 1 <= least <= most <= places:
            raise UserError(
                f"a block of {places} tokens cannot keep {least} to {most}: change min_tokens or max_tokens"
            )
        self.perceptual = load_perceptual(config.perceptual) if config.perceptual_weight else None
        self.perceptual_weight = config.perceptual_weight
        self.still_share = config.still_share

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights but the loss's own, from the flat ``params`` of a released checkpoint.

        Raises:
            UserError: an array is missing or has no place here.
        """
        return from_elastictok(theirs, self.autoencoder)

    @property
    def tokens_per_block(self) -> int:
        """The places for tokens in a block."""
        return self.autoencoder.tokens_per_block

    @property
    def block_frames(self) -> int:
        """Frames of a block."""
        return self.autoencoder.block_frames

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch."""
        seeds = batch["seed"]
        video = self.with_stills(as_float(batch["video"]), seeds)
        kept = self._grid(self.draw_lengths(seeds, video.shape[1] // self.block_frames)).kept()
        rebuilt, passage = self.pass_through(video, kept)
        rebuilt = rebuilt.float()
        error = (rebuilt - video).square().mean()
        metrics = {"mse": error.detach(), **passage.metrics}
        total = 4 * error + passage.loss  # on the scale of pixels in -1..1
        if self.perceptual is not None:
            chosen = (uniform(seeds, 1, "elastictok.still_frame") * video.shape[1]).long()
            distance = self.perceptual(*(take(clip, chosen)[:, 0] for clip in (rebuilt, video))).mean()
            total = total + self.perceptual_weight * distance
            metrics[self.perceptual.name] = distance.detach()
        return Loss(total, metrics)

    def draw_lengths(self, seeds: Tensor, num_blocks: int) -> Tensor:
        """How many tokens each block keeps in training, ``B b``: uniform from ``min_tokens`` to ``max_tokens``."""
        choices = self.max_tokens - self.min_tokens + 1
        return self.min_tokens + (uniform(seeds, num_blocks, "elastictok.lengths") * choices).long()

    def with_stills(self, video: Tensor, seeds: Tensor) -> Tensor:
        """A share of the clips of ``B T C H W`` video with the first frame of each block throughout it."""
        if not self.still_share:
            return video
        first = video[:, :: self.block_frames].repeat_interleave(self.block_frames, dim=1)
        still = uniform(seeds, 1, "elastictok.stills") < self.still_share
        return torch.where(still[:, :, None, None, None], first, video)

    def pass_through(
        self, video: Tensor, kept: Tensor | None = None, past: Past | None = None
    ) -> tuple[Tensor, Quantised]:
        """What the decoder says of ``B T C H W`` video in 0..1 of which only the tokens at ``kept`` (``B N``) remain.

        With ``past``, the video goes on after the blocks remembered there.
        """
        passage = self._code(video, kept, past)
        return self.autoencoder.decode(passage.latents, past), passage

    def _code(self, video: Tensor, kept: Tensor | None, past: Past | None = None) -> Quantised:
        """What the bottleneck lets through; latents that are not kept are zero."""
        latents = self.autoencoder.encode(video, kept, past)
        if kept is None:
            return self.bottleneck(latents)
        remains = kept.view(*latents.shape[:-1], 1)
        if self.codebook_size is None:
            latents = latents * remains  # moments of zero are the prior's: no divergence where nothing is kept
        passage = self.bottleneck(latents)
        metrics = passage.metrics
        if passage.ids is not None:
            metrics = usage(passage.ids.flatten(0, 3), self.codebook_size, kept.flatten())
        return replace(passage, latents=passage.latents * remains, metrics=metrics)

    @torch.no_grad()
    def encode(self, video: Tensor, lengths: Tensor | int | None = None) -> Tokens:
        """Code ``B T C H W`` video in ``lengths`` tokens a block (``B b``, or the same for all); by default the most.

        Raises:
            ValueError: the video is not made of whole blocks, or a length is not from 1 to ``tokens_per_block``.
        """
        if lengths is None and self.max_tokens == self.tokens_per_block:
            return super().encode(video)
        lengths = self.max_tokens if lengths is None else lengths
        blocks = video.shape[1] // self.block_frames
        lengths = torch.as_tensor(lengths, device=video.device).expand(len(video), blocks)
        if lengths.numel() and not 1 <= lengths.min() <= lengths.max() <= self.tokens_per_block:
            raise ValueError(f"lengths are from 1 to {self.tokens_per_block}; given were {lengths.tolist()}")
        return self._tokens(self._code(as_float(video), self._grid(lengths).kept()), lengths)

    def latents_of(self, tokens: Tokens) -> Tensor:
        """What the decoder takes, zero where tokens do not count."""
        latents, kept = super().latents_of(tokens), tokens.kept()
        return latents if kept is None else latents * kept.view(*latents.shape[:-1], 1)

    @torch.no_grad()
    def encode_to(
        self,
        video: Tensor,
        target: float,
        *,
        method: Method = "binary",
        bins: int = 100,
        distance: Distance = mean_squared_error,
    ) -> Fitted:
        """Code each block in the fewest tokens for which ``distance`` to the original is at most ``target``.

        Blocks are searched one after the other, given those before them as they were coded; a block that stays
        above the target gets the most. ``method`` and ``bins`` are those of
        :class:`~filmstrip.nn.length_search.Search`. Everything before a block is remembered, not computed again.
        """
        clips = as_float(video).split(self.block_frames, dim=1)
        past = self.autoencoder.start(len(video), len(clips))
        search = Search(self.min_tokens, self.max_tokens, method, bins)
        found: list[tuple[Tensor, Tensor, Quantised]] = []
        for i, clip in enumerate(clips):

            def errors(lengths: Tensor, place: int = i, clip: Tensor = clip) -> Tensor:
                return distance(self._attempt(clip, lengths, past, place)[0], clip)

            lengths = search(errors, target, len(video), video.device)
            found.append((lengths, *self._attempt(clip, lengths, past, i)))
        lengths = torch.stack([length for length, _, _ in found], dim=1)
        rebuilt = [clip for _, clip, _ in found]
        whole = replace(found[0][2], latents=torch.cat([passage.latents for *_, passage in found], dim=1))
        if whole.ids is not None:
            whole = replace(whole, ids=torch.cat([passage.ids for *_, passage in found], dim=1))
        return Fitted(
            tokens=self._tokens(whole, lengths),
            rebuilt=torch.cat(rebuilt, dim=1),
            errors=torch.stack([distance(ours, clip) for ours, clip in zip(rebuilt, clips)], dim=1),
            evaluations=search.evaluations // len(clips),
        )

    def _attempt(self, clip: Tensor, lengths: Tensor, past: Past, place: int) -> tuple[Tensor, Quantised]:
        """Block ``place`` rebuilt from ``B`` lengths, and its passage; the past then ends with this attempt."""
        past.rewind(place * self.tokens_per_block)
        decoded, passage = self.pass_through(clip, self._grid(lengths[:, None]).kept(), past)
        return self.pixels(decoded), passage

    def _grid(self, lengths: Tensor) -> Tokens:
        """Empty tokens of ``B b`` lengths."""
        t, h, w = self.autoencoder.block_grid
        return Tokens(Grid(t * lengths.shape[1], h, w), lengths=lengths)

    def _tokens(self, passage: Quantised, lengths: Tensor) -> Tokens:
        tokens = self._grid(lengths)
        if passage.ids is None:
            return replace(tokens, latents=rearrange(passage.latents, "b t h w d -> b (t h w) d"))
        ids = passage.ids.flatten(1, 3) * tokens.kept().view(len(lengths), -1, *[1] * (passage.ids.ndim - 4))
        return replace(tokens, ids=ids.flatten(1))


@dataclass(frozen=True, kw_only=True)
class ElasticTokConfig(ObjectiveConfig):
    """The network and its bottleneck."""

    width: Count = 1024
    depth: Count = 10
    """Number of layers of the encoder, and of the decoder."""
    num_heads: Count = 8
    mlp_ratio: Rate = 2.0
    """Hidden width of the gated feed-forward networks, as a multiple of ``width``."""
    block_frames: Count = 4
    size: Count = 256
    """Height and width of the frames, pixels."""
    patch_size: tuple[Count, Count, Count] = (2, 8, 8)
    """Frames, rows and columns that one token represents, if all tokens are kept."""
    min_tokens: Count = 128
    """Minimum number of tokens of a block that training keeps."""
    max_tokens: Count | None = None
    """Maximum number of tokens of a block; by default all. If equal to ``min_tokens``, the length is fixed."""
    rope_base: Rate = 5e6
    codebook: Codebook | None = None
    """Codebook of discrete tokens; None for continuous tokens."""
    latent_dim: Count = 8
    """Number of channels of a continuous token."""
    kl_weight: Weight = 1e-8
    """Weight of a block's KL divergence from a standard normal, in nats summed over kept tokens (continuous)."""
    perceptual: tuple[Path, ...] = ()
    """Files with LPIPS's weights (VGG-16 and linear layers); without them, random features are used and named so."""
    perceptual_weight: Weight = 0.1
    still_share: Share = 0.0
    """Fraction of the training clips in which each block is a still image."""

    @property
    def block_grid(self) -> Grid:
        """The places for tokens in a block, along time, height and width."""
        return Grid(*(n // p for n, p in zip((self.block_frames, self.size, self.size), self.patch_size)))

    @property
    def tokens_per_block(self) -> int:
        """How many places that are."""
        return prod(self.block_grid)

    def build_bottleneck(self) -> Bottleneck:
        """What tokens go through."""
        if self.codebook is not None:
            return self.codebook.build()
        # The bottleneck takes a mean over values, and the weight is that of a sum over a block.
        return Gaussian(self.latent_dim, kl_weight=self.kl_weight * self.tokens_per_block * self.latent_dim)

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The network of the perceptual distance, where files hold it."""
        return (
            {"perceptual": FrozenPart("objective.perceptual", only_training=True)} if self.perceptual_weight else {}
        )

    def build(self) -> ElasticTok:
        """Build the network with fresh weights.

        Raises:
            UserError: a block has not as many tokens as training is to keep.
        """
        return ElasticTok(self)
