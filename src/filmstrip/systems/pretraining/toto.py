"""Toto: a LLaMA-like transformer that predicts the next code of videos and images, trained without labels.

Each frame becomes a grid of dVAE codes; 16 frames of a video, or 16 images, make one sequence between a start and an
end token. What the middle layers hold is used for recognition, tracking and control: the last ones serve prediction.
Rajasegaran et al., "An Empirical Study of Autoregressive Pre-training from Videos", 2025.

    filmstrip train pretraining.toto:base --data PATH --objective.tokenizer-run RUN

Where we deviate: the paper's start and end tokens (1, 2, 3) have the numbers of codes, so that codes are shifted by
four here; its printed block adds to the normalised tokens, which we take for a misprint of LLaMA's; 4096 codes with
start and end are 4098 tokens, not "4K". The optimiser, its rates and the batch are not in the paper: AdamW (0.9,
0.95), weight decay 0.1, 3e-4 (2e-4 for 1b), cosine to a tenth, 256 sequences, a trillion tokens are ours.
Embeddings and output layer are tied, with which all three sizes round to those printed (120 M, 280 M, 1.1 B).

The paper reports (top-1, attention probe of the best layer, the backbone trained on): ImageNet 64.7, 71.1, 75.3 and
Kinetics-400 59.3, 65.3, 74.4 for base, large, 1b; DAVIS J&F 62.4 (large, 512 pixels).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip import systems
from filmstrip.bounds import Count, Rate
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.latent import CodedVideo, LatentConfig
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Condition, Features, Loss, Objective, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop, Optim

VIDEO, END, IMAGES = 1, 2, 3
"""Tokens that begin the codes of a video, end any sequence, and begin the codes of images. Token 0 is never used."""
SPECIALS = 4
"""Number of tokens before the first code."""


class TotoEncoder(CodedVideo):
    """The tokenizer and the decoder: features of every position, each of the codes up to its own."""

    any_grid = True

    def __init__(self, config: TotoConfig, tokenizer: TokenizerObjective) -> None:
        super().__init__(tokenizer, num_frames=config.num_frames, size=config.size)
        self.decoder = Decoder(config.decoder(SPECIALS + self.codebook_size))
        self.width = config.width

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Features of ``B T C H W`` video of any length and of any size that the tokenizer's patches tile.

        A clip of one frame is read as an image.
        """
        tokens = self.codes({"video": video})
        images = torch.full((len(video),), tokens.grid.t == 1, device=video.device)
        made = self.decoder(self.sequence(tokens.ids, images), layers=layers)
        return Features(made.hidden[:, 1:], tokens.grid, tuple(layer[:, 1:] for layer in made.layers))

    def sequence(self, ids: Tensor, images: Tensor) -> Tensor:
        """Tokens ``B N+1``: the start of a video, or of images where ``images`` (``B`` bool), and ``B N`` codes."""
        return torch.cat([torch.where(images, IMAGES, VIDEO)[:, None], ids + SPECIALS], dim=1)


class Toto(Objective):
    """Cross-entropy of every code, and of the end, given what comes before; likelihood; continuations of video."""

    requires = ()  # video or tokens: TotoEncoder.codes says so

    def __init__(self, config: TotoConfig, tokenizer: TokenizerObjective) -> None:
        super().__init__()
        self.encoder = TotoEncoder(config, tokenizer)
        self.num_frames = config.num_frames

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per token."""
        nats = self._nats(batch).mean()
        return Loss(nats, {"perplexity": nats.detach().exp()})

    def _nats(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each code and of the end, ``B N+1`` float32."""
        ids = self.encoder.codes(batch).ids
        images = batch.get("images")
        if images is None:
            images = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        hidden = self.encoder.decoder(self.encoder.sequence(ids, images)).hidden
        targets = F.pad(ids + SPECIALS, (0, 1), value=END)
        logits = self.encoder.decoder.logits(hidden).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def log_prob(self, batch: Batch) -> Tensor:
        """The log-probability of all codes of each clip: ``B`` nats, exact, of codes and not of pixels."""
        with inference(self):
            nats = self._nats(batch)[:, :-1].sum(dim=1)
        return -nats.clone()

    def dims_of(self, batch: Batch) -> int:
        """Number of codes of a clip."""
        return self.encoder.codes(batch).ids.shape[1]

    def sample(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Tensor:
        """``B T C H W`` in 0..1, as :class:`~filmstrip.protocols.Generator` says: the frames of :meth:`stream`.

        Raises:
            UserError: the condition has a class or actions, or frames of another size.
        """
        made = list(self.stream(condition, seed=seed, sampling=sampling))
        context = [] if condition.video is None else [as_float(condition.video.to(device_of(self)))]
        return torch.cat([*context, *made], dim=1)

    def stream(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Iterator[Tensor]:
        """The frames after the context, ``B 1 C H W`` in 0..1, one by one.

        Raises:
            UserError: see :meth:`sample`.
        """
        frames = self._frames(condition, seed, sampling or Sampling())
        while True:
            with inference(self):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame.clone()  # outside of inference mode, so that it is an ordinary tensor

    def _frames(self, condition: Condition, seed: int, sampling: Sampling) -> Iterator[Tensor]:
        self._check(condition)
        encoder, device = self.encoder, device_of(self)
        grid = encoder.grid._replace(t=1)
        prefix = torch.empty(condition.batch_size, 0, dtype=torch.int64, device=device)
        if condition.video is not None:
            prefix = encoder.codes({"video": condition.video.to(device)}).ids
        count = condition.num_frames * grid.h * grid.w - prefix.shape[1]
        seeds = torch.arange(condition.batch_size, device=device) + seed
        prompt = encoder.sequence(prefix, torch.zeros(len(prefix), dtype=torch.bool, device=device))
        drawn = uniform(seeds, count, "toto.codes") if count else prompt[:, :0]
        codes: list[Tensor] = []
        for token in encoder.decoder.decode(prompt, drawn, sampling, allowed=slice(SPECIALS, None)):
            codes.append(token - SPECIALS)
            if len(codes) == grid.h * grid.w:
                yield encoder.video_of(Tokens(grid, ids=torch.stack(codes, dim=1)))
                codes.clear()

    def _check(self, condition: Condition) -> None:
        """Refuse what the model was not made for."""
        if condition.label is not None or condition.action is not None:
            raise UserError("Toto continues videos: it knows no classes and no actions")
        video, (_, p, q) = condition.video, self.encoder.tokenizer.patch_size
        size = (self.encoder.grid.h * p, self.encoder.grid.w * q)
        if video is not None and tuple(video.shape[3:]) != size:
            raise UserError(
                f"the model continues frames of {size[0]} x {size[1]} pixels, not {tuple(video.shape[3:])}"
            )
        if video is not None and video.shape[1] > condition.num_frames:
            raise UserError(f"{video.shape[1]} context frames are more than the {condition.num_frames} asked for")

    def depth_of(self, name: str) -> int:
        """The embedding, the blocks in order, then the last norm and the output layer."""
        blocks = len(self.encoder.decoder.blocks)
        if name.startswith("encoder.decoder.blocks."):
            return 1 + int(name.split(".")[3])
        return 0 if ".embed." in name else blocks + 1


@dataclass(frozen=True, kw_only=True)
class TotoConfig(LatentConfig):
    """Sizes of the transformer, and the tokenizer."""

    width: Count
    """Dimension of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Number of attention heads."""
    mlp_dim: Count
    """Inner width of the feed-forward networks."""
    tied: bool = True
    """Whether the output layer shares its weights with the embedding."""
    rope_base: Rate = 10_000.0
    """Base of the wavelengths of rotary embeddings; the paper raises it to 50,000 for 32 x 32 codes a frame."""

    def decoder(self, vocab_size: int) -> DecoderConfig:
        """The transformer for so many tokens."""
        return DecoderConfig(
            vocab_size=vocab_size,
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            tied=self.tied,
            rope_base=self.rope_base,
        )

    def build(self) -> Toto:
        """Build everything with fresh weights.

        Raises:
            UserError: the tokenizer has no codes, several a position, or does not code frames one by one.
        """
        tokenizer = self.build_tokenizer()
        if not tokenizer.frames_apart or getattr(tokenizer.bottleneck, "num_codebooks", 1) != 1:
            raise UserError(
                f"Toto needs a tokenizer that codes frames one by one, with one codebook, and "
                f"{type(self.tokenizer).__name__} does not: give tokenizers.dvae or tokenizers.vqgan"
            )
        return Toto(self, tokenizer)


def tiny() -> Run:
    """Motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=4, stride=4, size=32, short_side=(32, 32)),
            batch_size=16,
        ),
        objective=TotoConfig(
            tokenizer=systems.find("tokenizers.dvae:tiny").objective,
            untrained_tokenizer=True,
            num_frames=4,
            size=32,
            width=64,
            depth=4,
            num_heads=4,
            mlp_dim=192,
        ),
        optim=Optim(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),
        train=Loop(steps=100),
    )


def _paper(width: int, depth: int, num_heads: int, mlp_dim: int, *, lr: float = 3e-4) -> Run:
    """16 frames, every fourth, of 128 x 128 pixels; a trillion tokens in batches of 256 sequences."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=4, size=128, short_side=(128, 128)),
            augment=Augment(mirror=0.0),
            batch_size=256,
            num_workers=10,
        ),
        objective=TotoConfig(
            tokenizer=systems.find("tokenizers.dvae:dalle").objective,
            num_frames=16,
            size=128,
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
        ),
        optim=Optim(lr=lr, betas=(0.9, 0.95), weight_decay=0.1, warmup=2_000 / 950_000, final=0.1),
        train=Loop(steps=950_000, precision="bfloat16", clip_grad=1.0),
    )


def base() -> Run:
    """120 million parameters."""
    return _paper(768, 12, 12, 3072)


def large() -> Run:
    """280 million parameters."""
    return _paper(1024, 16, 16, 4096)


def one_b() -> Run:
    """1.1 billion parameters."""
    return _paper(2048, 22, 16, 5504, lr=2e-4)


def large_32() -> Run:
    """The large model on 32 x 32 codes a frame, with another rotary base: to start from one of 16 x 16."""
    run = large()
    clip = replace(run.data.clip, size=256, short_side=(256, 256))
    return replace(
        run,
        data=replace(run.data, clip=clip, batch_size=64),
        objective=replace(run.objective, size=256, rope_base=50_000.0),
    )
