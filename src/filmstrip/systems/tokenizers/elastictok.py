"""ElasticTok: video becomes blocks of tokens, more of them where more is going on.

A transformer autoencoder is trained with only the first tokens of each block, a random number of them, so that what
matters most moves to the front. Afterwards every block may be cut short wherever the rest is good enough: at a given
length, or at the least that meets a given error, found by search. Long videos are sequences of blocks that see those
before them.
Yan et al., "ElasticTok: Adaptive Tokenization for Image and Video", ICLR 2025; as in Wilson Yan's dissertation
(chapter 4, appendix C).

    filmstrip train tokenizers.elastictok:continuous --data.path PATH --objective.perceptual vgg16.pth lpips_vgg.pth

``continuous`` and ``discrete`` are the first stage on video, single blocks; those that follow end in their number of
blocks, up to 256 (1,024 frames). A stage starts from the one before it with ``--init RUN``: there are no weights that
depend on the number of blocks. ``continuous_image`` and ``discrete_image`` are the models of pictures alone.

Where we deviate: the perceptual error is of one frame of every clip, at its own size (published: of one frame of one
block of the batch's clips, at 224 pixels). A block keeps as many tokens as were drawn, up to all of them (published:
one more). Lengths tried in bins are spaced evenly (published: by ratios), and binary search gives the least length
found to meet the target (published: the last one tried). A still is a block whose first frame stays, and stills of
one clip see those before them. Betas and decay of the learning rate are not stated: AdamW's usual ones and none.
Errors and targets are of pixels in 0..1, a quarter of the published ones in -1..1. Perplexity is that of kept tokens.

The paper reports 1.3 to 5 times fewer tokens than tokenizers of fixed length for as many blocks to meet an error (in
its table 4.2, at equal worst error, 1.04, 1.54 and 1.60 times where 50, 88 and 99% meet it), a Pearson correlation of
0.77 between a block's tokens and its Sobel energy, and binary search 7% off in 12 evaluations. We measured, when the
network still had a few biases more (continuous tokens), with ``python claims/elastictok_busy.py`` (0.6 M parameters,
mazes at 32 x 32, 400 steps, one seed): correlations of 0.59, 0.70 and 0.60, and 0.81, 1.52 and 3.53 times fewer
tokens, at errors that 44, 87 and 98% of the blocks met; binary search 2.2% off at the middle one, and 12 evaluations
of 4,096 lengths. So strict errors save nothing, in the paper little: a block that no length is enough for takes all
tokens for nothing (56% of 64 are 36 tokens a block already), and training for every length costs accuracy at the
longest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, Rate, Share, Weight
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.elastic import TokensAgainstError
from filmstrip.models.elastic_autoencoder import ElasticAutoencoder, Past
from filmstrip.models.perceptual import Perceptual
from filmstrip.nn.gaussian import Gaussian
from filmstrip.nn.length_search import Method, Search
from filmstrip.nn.patches import take
from filmstrip.nn.quantise import Bottleneck, Quantised, usage
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.elastic import Distance, Fitted, mean_squared_error
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Grid, Loss, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.config import ObjectiveConfig, Run
from filmstrip.train.config import Loop, Optim
from filmstrip.weights.lpips import load_perceptual

_LENGTHS, _STILLS, _FRAME = 401, 402, 403  # salts


class ElasticTok(TokenizerObjective):
    """Squared and perceptual error of videos of which each block keeps a random number of tokens.

    An :class:`~filmstrip.objectives.elastic.ElasticTokenizer`.
    """

    requires = ("video", "seed")
    training_only = ("perceptual",)

    def __init__(
        self,
        autoencoder: ElasticAutoencoder,
        bottleneck: Bottleneck,
        perceptual: Perceptual | None,
        *,
        min_tokens: int,
        max_tokens: int,
        perceptual_weight: float,
        still_share: float,
    ) -> None:
        super().__init__(autoencoder, bottleneck)
        if not 1 <= min_tokens <= max_tokens <= autoencoder.tokens_per_block:
            raise UserError(
                f"a block of {autoencoder.tokens_per_block} tokens cannot keep {min_tokens} to {max_tokens}: "
                "change min_tokens or max_tokens"
            )
        self.perceptual = perceptual
        self.min_tokens, self.max_tokens = min_tokens, max_tokens
        self.perceptual_weight = perceptual_weight
        self.still_share = still_share

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
            chosen = (uniform(seeds, 1, _FRAME) * video.shape[1]).long()
            distance = self.perceptual(*(take(clip, chosen)[:, 0] for clip in (rebuilt, video))).mean()
            total = total + self.perceptual_weight * distance
            metrics[self.perceptual.name] = distance.detach()
        return Loss(total, metrics)

    def draw_lengths(self, seeds: Tensor, num_blocks: int) -> Tensor:
        """How many tokens each block keeps in training, ``B b``: uniform from ``min_tokens`` to ``max_tokens``."""
        choices = self.max_tokens - self.min_tokens + 1
        return self.min_tokens + (uniform(seeds, num_blocks, _LENGTHS) * choices).long()

    def with_stills(self, video: Tensor, seeds: Tensor) -> Tensor:
        """A share of the clips of ``B T C H W`` video with the first frame of each block throughout it."""
        if not self.still_share:
            return video
        first = video[:, :: self.block_frames].repeat_interleave(self.block_frames, dim=1)
        still = uniform(seeds, 1, _STILLS) < self.still_share
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
    """The network and its bottleneck; the defaults are the continuous model's."""

    width: Count = 1024
    depth: Count = 10
    """Layers of the encoder, and of the decoder."""
    num_heads: Count = 8
    mlp_ratio: Rate = 2.0
    """Hidden width of the gated feed-forward networks, as a multiple of ``width``."""
    block_frames: Count = 4
    size: Count = 256
    """Height and width of the frames, pixels."""
    patch_size: tuple[Count, Count, Count] = (2, 8, 8)
    """Frames, rows and columns that one token stands for, if all are kept."""
    min_tokens: Count = 128
    """The fewest tokens of a block that training keeps."""
    max_tokens: Count | None = None
    """The most; by default all. With as many as ``min_tokens`` this is a tokenizer of fixed length."""
    rope_base: Rate = 5e6
    codebook: Codebook | None = None
    """Codes that tokens are replaced by; without, tokens are continuous."""
    latent_dim: Count = 8
    """Channels of a continuous token."""
    kl_weight: Weight = 1e-8
    """Weight of a block's divergence from a standard normal, nats summed over kept tokens (continuous)."""
    perceptual: tuple[Path, ...] = ()
    """Files with LPIPS's weights (VGG-16 and linear layers); without, random features stand in, and are named so."""
    perceptual_weight: Weight = 0.1
    still_share: Share = 0.0
    """Share of the clips in which each block stands still, as a picture would."""

    def build(self) -> ElasticTok:
        """Build the network with fresh weights."""
        cubes = zip((self.block_frames, self.size, self.size), self.patch_size)
        tokens_per_block = torch.Size(extent // p for extent, p in cubes).numel()
        if self.codebook is not None:
            bottleneck = self.codebook.build()
        else:
            kl_weight = self.kl_weight * tokens_per_block * self.latent_dim  # the bottleneck takes a mean
            bottleneck = Gaussian(self.latent_dim, kl_weight=kl_weight)
        autoencoder = ElasticAutoencoder(
            input_dim=bottleneck.input_dim,
            latent_dim=bottleneck.latent_dim,
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            block_frames=self.block_frames,
            size=self.size,
            patch_size=self.patch_size,
            rope_base=self.rope_base,
        )
        return ElasticTok(
            autoencoder,
            bottleneck,
            load_perceptual(self.perceptual) if self.perceptual_weight else None,
            min_tokens=self.min_tokens,
            max_tokens=self.max_tokens or tokens_per_block,
            perceptual_weight=self.perceptual_weight,
            still_share=self.still_share,
        )


def tiny() -> Run:
    """Two blocks of two frames of motions at 32 x 32 pixels, discrete; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=4, stride=4, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=ElasticTokConfig(
            width=64,
            depth=2,
            num_heads=2,
            block_frames=2,
            size=32,
            patch_size=(1, 8, 8),
            min_tokens=4,
            codebook=Codebook(kind="fsq"),
            perceptual_weight=0.0,
        ),
        optim=Optim(lr=2e-3, weight_decay=1e-4),
        train=Loop(steps=100),
        evals=(TokensAgainstError(targets=(0.02,)),),
    )


def _stage(
    network: ElasticTokConfig, *, blocks: int, steps: int, warmup: int, batch_size: int = 256, stills: float = 0.25
) -> Run:
    """A stage of the training (appendix C.2), of video at 24 frames a second."""
    return Run(
        data=Data(
            clip=Clip(num_frames=blocks * network.block_frames, stride=1, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.0),
            batch_size=batch_size,
        ),
        objective=replace(network, still_share=stills),
        optim=Optim(lr=2e-4, weight_decay=1e-4, schedule="constant", warmup=warmup / steps),
        train=Loop(steps=steps, checkpoint=blocks > 1),
        evals=(TokensAgainstError(),),
    )


_CONTINUOUS = ElasticTokConfig()
_DISCRETE = ElasticTokConfig(
    patch_size=(1, 8, 8), min_tokens=256, rope_base=5e7, codebook=Codebook(kind="fsq", levels=(8, 8, 8, 5, 5, 5))
)


def continuous_image() -> Run:
    """The continuous model on stills alone, a picture four times in a block."""
    return _stage(_CONTINUOUS, blocks=1, steps=200_000, warmup=10_000, stills=1.0)


def continuous() -> Run:
    """2048 continuous tokens for 4 frames of 256 x 256; single blocks, half of them stills."""
    return _stage(_CONTINUOUS, blocks=1, steps=200_000, warmup=10_000, stills=0.5)


def continuous_2() -> Run:
    """The continuous model on 8 frames, 2 blocks, half of the clips stills."""
    return _stage(_CONTINUOUS, blocks=2, steps=80_000, warmup=5000, stills=0.5)


def continuous_4() -> Run:
    """The continuous model on 16 frames, 4 blocks, a quarter of the clips stills."""
    return _stage(_CONTINUOUS, blocks=4, steps=50_000, warmup=2000)


def continuous_16() -> Run:
    """The continuous model on 64 frames, 16 blocks."""
    return _stage(_CONTINUOUS, blocks=16, steps=10_000, warmup=1000, batch_size=64)


def continuous_64() -> Run:
    """The continuous model on 256 frames, 64 blocks."""
    return _stage(_CONTINUOUS, blocks=64, steps=1000, warmup=200, batch_size=16)


def continuous_128() -> Run:
    """The continuous model on 512 frames, 128 blocks."""
    return _stage(_CONTINUOUS, blocks=128, steps=500, warmup=100, batch_size=8)


def continuous_256() -> Run:
    """The continuous model on 1024 frames, 256 blocks."""
    return _stage(_CONTINUOUS, blocks=256, steps=200, warmup=25, batch_size=4)


def discrete_image() -> Run:
    """The discrete model on stills alone, a picture four times in a block."""
    return _stage(_DISCRETE, blocks=1, steps=200_000, warmup=10_000, stills=1.0)


def discrete() -> Run:
    """4096 tokens of 64,000 codes for 4 frames of 256 x 256; single blocks, half of them stills."""
    return _stage(_DISCRETE, blocks=1, steps=200_000, warmup=10_000, stills=0.5)


def discrete_2() -> Run:
    """The discrete model on 8 frames, 2 blocks, half of the clips stills."""
    return _stage(_DISCRETE, blocks=2, steps=80_000, warmup=5000, stills=0.5)


def discrete_4() -> Run:
    """The discrete model on 16 frames, 4 blocks, a quarter of the clips stills."""
    return _stage(_DISCRETE, blocks=4, steps=50_000, warmup=2000)


def discrete_16() -> Run:
    """The discrete model on 64 frames, 16 blocks."""
    return _stage(_DISCRETE, blocks=16, steps=10_000, warmup=1000, batch_size=64)


def discrete_64() -> Run:
    """The discrete model on 256 frames, 64 blocks."""
    return _stage(_DISCRETE, blocks=64, steps=1000, warmup=200, batch_size=16)


def discrete_128() -> Run:
    """The discrete model on 512 frames, 128 blocks."""
    return _stage(_DISCRETE, blocks=128, steps=500, warmup=100, batch_size=8)


def discrete_256() -> Run:
    """The discrete model on 1024 frames, 256 blocks."""
    return _stage(_DISCRETE, blocks=256, steps=200, warmup=25, batch_size=4)
