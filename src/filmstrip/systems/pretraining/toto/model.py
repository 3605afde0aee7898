"""Toto: tokens of videos and images, the loss of the next one, features, likelihood and continuations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate
from filmstrip.errors import UserError
from filmstrip.inference import device_of
from filmstrip.models.decoder import Decoder, DecoderConfig, DecoderOutput, LanguageModel
from filmstrip.nn.masks import Mask
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.config import FrozenPart
from filmstrip.objectives.latent import CodedVideo, LatentConfig
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Condition, Features, Loss, Objective, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.systems.pretraining.toto.mamba import Mamba, MambaConfig

VIDEO, END, IMAGES = 1, 2, 3
"""Tokens that begin the codes of a video, end any sequence, and begin the codes of images. Token 0 is never used."""
SPECIALS = 4
"""Number of tokens before the first code."""


class TotoEncoder(CodedVideo):
    """The tokenizer and the transformer: features of every position, each of the codes up to its own."""

    any_grid = True

    def __init__(self, config: TotoConfig, tokenizer: TokenizerObjective) -> None:
        super().__init__(tokenizer, num_frames=config.num_frames, size=config.size)
        self.decoder = config.build_decoder(SPECIALS + self.codebook_size)
        self.width = config.width
        self.depth = config.depth
        self.document_mask = config.document_mask

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Features of ``B T C H W`` video of any length and of any size that the tokenizer's patches tile.

        A clip of one frame is read as an image.
        """
        tokens = self.codes({"video": video})
        made = self.run(tokens, layers=layers)
        return Features(made.hidden[:, 1:], tokens.grid, tuple(layer[:, 1:] for layer in made.layers))

    def run(self, tokens: Tokens, images: Tensor | None = None, *, layers: bool = False) -> DecoderOutput:
        """The transformer's outputs at the start token and at all codes, ``B N+1 D``.

        ``images`` (``B``, bool) tells rows of unrelated images from videos; one frame is an image.
        """
        if tokens.grid.t == 1:
            return self.decoder(self.sequence(tokens.ids, IMAGES), layers=layers)
        if images is None:
            return self.decoder(self.sequence(tokens.ids, VIDEO), layers=layers)
        sequence = self.sequence(tokens.ids, torch.where(images, IMAGES, VIDEO))
        if not self.document_mask:
            return self.decoder(sequence, layers=layers)
        # What an image sees, and where: the start token and its own codes, as if it were alone.
        place = torch.arange(tokens.ids.shape[1] + 1, device=images.device)
        number, within = (place - 1) // per_frame(tokens), (place - 1) % per_frame(tokens) + 1
        document = torch.where(images[:, None], number, 0)
        positions = torch.where(images[:, None] & (place > 0), within, place)
        return self.decoder(sequence, mask=separate(document), positions=positions, layers=layers)

    def sequence(self, ids: Tensor, start: int | Tensor) -> Tensor:
        """Tokens ``B N+1``: a start token, one for all or one a row (``B``), and ``B N`` codes."""
        first = torch.as_tensor(start, device=ids.device).expand(len(ids))
        return torch.cat([first[:, None], ids + SPECIALS], dim=1)


def per_frame(tokens: Tokens) -> int:
    """Number of codes of a frame."""
    return tokens.grid.h * tokens.grid.w


def separate(documents: Tensor) -> Mask:
    """A token attends to those before it in its own document (``documents``: ``B N``), and to the first token."""
    rows = len(documents)
    return Mask(lambda b, h, q, k: (k <= q) & ((k == 0) | (documents[b, q] == documents[b, k])), batch=rows)


class Toto(Objective):
    """Cross-entropy of every code, and of the end, given what comes before; likelihood; continuations of video."""

    requires = ()  # video or tokens: TotoEncoder.codes says so

    def __init__(self, config: TotoConfig, tokenizer: TokenizerObjective) -> None:
        super().__init__()
        self.encoder = TotoEncoder(config, tokenizer)

    @property
    def tokenizer(self) -> TokenizerObjective:
        """The frozen tokenizer, which the encoder owns."""
        return self.encoder.tokenizer

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per token."""
        return self.loss_and_layers(batch, layers=False)[0]

    def loss_and_layers(self, batch: Batch, *, layers: bool = True) -> tuple[Loss, tuple[Tensor, ...]]:
        """The same, and the tokens of every layer at the codes; see :class:`~filmstrip.protocols.LayeredLearner`."""
        tokens, images = self.encoder.codes(batch), batch.get("images")
        made = self.encoder.run(tokens, images, layers=layers)
        nats = self.nats_of(tokens, made.hidden, images).mean()
        return Loss(nats, {"perplexity": nats.detach().exp()}), tuple(layer[:, 1:] for layer in made.layers)

    def _nats(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each code and of the end, ``B N+1`` float32."""
        tokens, images = self.encoder.codes(batch), batch.get("images")
        return self.nats_of(tokens, self.encoder.run(tokens, images).hidden, images)

    def nats_of(self, tokens: Tokens, hidden: Tensor, images: Tensor | None) -> Tensor:
        """The same of the outputs ``B N+1 D`` at the start token and all codes."""
        if self.encoder.document_mask and images is not None:
            # The first code of every image follows the start token.
            first = torch.arange(hidden.shape[1], device=hidden.device) % per_frame(tokens) == 0
            first[-1] = False  # which the end follows
            hidden = torch.where((images[:, None] & first)[..., None], hidden[:, :1], hidden)
        targets = F.pad(tokens.ids + SPECIALS, (0, 1), value=END)
        logits = self.encoder.decoder.logits(hidden).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def log_prob(self, batch: Batch) -> Tensor:
        """The log-probability of all codes of each clip: ``B`` nats, exact, of codes and not of pixels."""
        return -self._nats(batch)[:, :-1].sum(dim=1)

    @property
    def num_frames(self) -> int:
        """Number of frames of the clips that it was trained on."""
        return self.encoder.num_frames

    def frame_codes(self, video: Tensor) -> Tensor:
        """See :class:`~filmstrip.protocols.FrameScorer`."""
        return self.encoder.frame_codes(video)

    @torch.no_grad()
    def frame_log_probs(self, codes: Tensor, batch: Batch) -> Tensor:
        """See :class:`~filmstrip.protocols.FrameScorer`: together they are :meth:`log_prob`."""
        grid = self.encoder.grid._replace(t=codes.shape[1])
        tokens = Tokens(grid, ids=codes.flatten(1))
        hidden = self.encoder.decoder(self.encoder.sequence(tokens.ids, VIDEO), layers=False).hidden
        return -self.nats_of(tokens, hidden, None)[:, :-1].view(-1, *grid)

    def codes(self, batch: Batch) -> Tokens:
        """The codes of a batch; see :meth:`~filmstrip.objectives.latent.CodedVideo.codes`."""
        return self.encoder.codes(batch)

    def dims_of(self, batch: Batch) -> int:
        """Number of codes of a clip."""
        return self.codes(batch).ids.shape[1]

    def sample(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Tensor:
        """``B T C H W`` in 0..1, as :class:`~filmstrip.protocols.Generator` says: the frames of :meth:`stream`.

        Raises:
            UserError: the condition has a class or actions, or frames of another size.
        """
        made = list(self.stream(condition, seed=seed, sampling=sampling))
        context = [] if condition.video is None else [as_float(condition.video)]
        return torch.cat([*context, *made], dim=1)

    @torch.no_grad()
    def stream(self, condition: Condition, *, seed: int, sampling: Sampling | None = None) -> Iterator[Tensor]:
        """The frames after the context, ``B 1 C H W`` in 0..1, one by one.

        Raises:
            UserError: see :meth:`sample`.
        """
        self._check(condition)
        encoder, device = self.encoder, device_of(self)
        grid = encoder.grid._replace(t=1)
        prefix = torch.empty(condition.batch_size, 0, dtype=torch.int64, device=device)
        if condition.video is not None:
            prefix = encoder.codes({"video": condition.video}).ids
        count = condition.num_frames * grid.h * grid.w - prefix.shape[1]
        if not count:
            return
        seeds = torch.arange(condition.batch_size, device=device) + seed
        prompt = encoder.sequence(prefix, VIDEO)
        drawn = uniform(seeds, count, "toto.codes")
        codes: list[Tensor] = []
        tokens = encoder.decoder.decode(prompt, drawn, sampling or Sampling(), allowed=slice(SPECIALS, None))
        for token in tokens:
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

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """As everywhere, and the rates of Mamba's states."""
        return super().no_decay(name, param) or name.endswith(".log_rate")

    def rate_of(self, name: str) -> float:
        """The decoder's factors of muP."""
        decoder, prefix = self.encoder.decoder, "encoder.decoder."
        return decoder.rate_of(name.removeprefix(prefix)) if name.startswith(prefix) else 1.0

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
    network: Literal["llama", "gpt2", "mamba"] = "llama"
    """Network: LLaMA's blocks, GPT-2's, or selective state spaces without attention."""
    positions: Literal["rotary", "sincos"] = "rotary"
    """Position embeddings: rotated queries and keys, or sines and cosines added to the tokens; Mamba has none."""
    num_heads: Count = 1
    """Number of attention heads; Mamba has none."""
    mlp_dim: Count = 1
    """Inner width of the feed-forward networks; Mamba has none."""
    tied: bool = True
    """Whether the output layer shares its weights with the embedding."""
    rope_base: Rate = 10_000.0
    """Base of the wavelengths of rotary embeddings; the paper raises it to 50,000 for 32 x 32 codes a frame."""
    base_width: Count | None = None
    """Width at which all factors of muP are one, so that a learning rate found there holds for every width; none for
    the standard parametrisation. Needs ``tied`` False, and AdamW."""
    base_head_dim: Count | None = None
    """Dimension of a head at muP's base width; none for the same as here."""
    document_mask: bool = False
    """Whether images of one sequence see only themselves, each at the positions that it would have alone; in the
    paper they see those before them."""

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The tokenizer, where it is a trained one."""
        return {f"encoder.{name}": part for name, part in super().frozen_parts().items()}

    def build_decoder(self, vocab_size: int) -> LanguageModel:
        """The network for so many tokens, with fresh weights.

        Raises:
            UserError: muP of Mamba, or with tied weights.
        """
        if self.network == "mamba":
            if self.base_width:
                raise UserError("muP (objective.base_width) is there for llama and gpt2, not for mamba")
            sizes = MambaConfig(vocab_size=vocab_size, width=self.width, depth=self.depth, tied=self.tied)
            return Mamba(sizes)
        return Decoder(
            DecoderConfig(
                vocab_size=vocab_size,
                width=self.width,
                depth=self.depth,
                num_heads=self.num_heads,
                mlp_dim=self.mlp_dim,
                tied=self.tied,
                block=self.network,
                positions=self.positions,
                rope_base=self.rope_base,
                base_width=self.base_width,
                base_head_dim=self.base_head_dim,
            )
        )

    def build(self) -> Toto:
        """Build everything with fresh weights.

        Raises:
            UserError: the tokenizer has no codes, several a position, or does not code frames one by one; or Mamba,
                which has no attention, is to mask it.
        """
        if self.document_mask and self.network == "mamba":
            raise UserError("objective.document_mask is a mask of attention, and Mamba has none")
        tokenizer = self.build_tokenizer()
        if not tokenizer.frames_apart or tokenizer.bottleneck.num_codebooks != 1:
            raise UserError(
                f"Toto needs a tokenizer that codes frames one by one, with one codebook, and "
                f"{type(self.tokenizer).__name__} does not: give tokenizers.dvae or tokenizers.vqgan"
            )
        return Toto(self, tokenizer)
