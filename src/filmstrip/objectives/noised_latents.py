"""Diffusion in a tokenizer's latent space: what every method of it has around its network.

A frozen tokenizer of continuous latents, the process of :mod:`filmstrip.objectives.diffusion`, and, for methods that
are told what is to be seen, an encoder of texts: a frozen T5, or embeddings that are learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import CountOrZero, Rate
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.errors import UserError
from filmstrip.models.frozen_text import FrozenT5, T5Architecture
from filmstrip.models.text_embedding import TextEmbedding
from filmstrip.objectives.config import FrozenPart
from filmstrip.objectives.diffusion import ConditionDropout, DiffusionConfig
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.latent import LatentConfig
from filmstrip.objectives.video_autoencoder import KINDS, VideoAutoencoderConfig
from filmstrip.protocols import Grid, Objective, Tokens
from filmstrip.randomness import normal
from filmstrip.settings import FREE

STABLE_DIFFUSION_SCALE = 0.18215
"""Factor of the latents of Stable Diffusion's autoencoder (Rombach et al. 2022)."""


@dataclass(frozen=True, kw_only=True)
class NoisedLatentsConfig(LatentConfig):
    """The process, the encoder of texts and how samples are drawn."""

    continuous: ClassVar[bool] = True
    has_text_run: ClassVar[bool] = True

    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    """Process, and the loss."""
    dropout: ConditionDropout = field(default_factory=ConditionDropout)
    """How often training does without conditions: without any, guidance has nothing to go by."""
    text: T5Architecture | None = None
    """Sizes of a frozen T5 that encodes texts, which ``text_run`` sets; none for embeddings that are learnt."""
    text_run: str | None = None
    """Folder of a T5 in the Hub's layout, or its address ``hf:OWNER/NAME``. Its weights stay there: this run refers
    to them by their fingerprint."""
    untrained_text: bool = field(default=False, metadata=FREE)
    """Whether the T5 may be untrained where no ``text_run`` is named: to try things out."""
    vocab_size: CountOrZero = 0
    """Number of token ids of texts, set from the data."""
    text_length: CountOrZero = 0
    """Number of token ids of a text, padding included, set from the data."""
    empty_text: tuple[CountOrZero, ...] = ()
    """Token ids of the empty text without padding, set from the data."""
    text_padding: CountOrZero = 0
    """Token id of padding, set from the data."""
    text_sees_padding: bool = False
    """Whether the T5 attends to padding as well, as in LTX-Video's pipeline."""
    latent_scale: Rate | None = None
    """Factor of the tokenizer's latents; by default one over the standard deviation of those of the first batch."""
    sampling: DiffusionSampling = field(default_factory=DiffusionSampling, metadata=FREE)
    """How samples are drawn, unless it is said otherwise."""

    def bind(self, info: DataInfo) -> Self:
        """Take the vocabulary of captions from the data."""
        if not isinstance(info, CaptionInfo):
            return self
        words = info.tokenizer
        empty = (words.end,) if words.start is None else (words.start, words.end)
        return replace(
            self,
            vocab_size=words.size,
            text_length=info.max_length,
            empty_text=empty,
            text_padding=words.pad,
        )

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The tokenizer, and a T5."""
        parts = super().frozen_parts()
        return parts | ({"text": FrozenPart("objective.text_run")} if self.text is not None else {})

    def with_text_of_hub(self, config: Mapping[str, Any], source: str) -> Self:
        """See :meth:`ObjectiveConfig.with_text_of_hub`."""
        return replace(self, text=T5Architecture.of_hub(config, source))

    def with_tokenizer_of_hub(self, config: Mapping[str, Any], source: str) -> Self:
        """See :meth:`LatentConfig.with_tokenizer_of_hub`: also with the factor of latents that it states. An
        autoencoder of video (:mod:`filmstrip.objectives.video_autoencoder`) takes any tokenizer's place."""
        if config.get("_class_name") in KINDS:
            found, _ = VideoAutoencoderConfig().of_hub(config, None, source)
            return replace(self, tokenizer=found, latent_scale=1.0)
        scale = config.get("scaling_factor", STABLE_DIFFUSION_SCALE)
        return replace(super().with_tokenizer_of_hub(config, source), latent_scale=scale)

    def needs_init(self) -> str | None:
        """A T5 without weights says nothing of texts."""
        if self.text is None or self.text_run is not None or self.untrained_text:
            return None
        return (
            "texts are encoded by a T5, and no weights of one are named: give its folder (--objective.text-run "
            "FOLDER), or ask for an untrained one (--objective.untrained-text)"
        )

    def check_texts(self) -> None:
        """See that something is known of texts.

        Raises:
            UserError: nothing is.
        """
        if not self.vocab_size:
            raise UserError(
                f"{type(self).__name__} needs captioned clips (--data.reads captioned), or objective.vocab_size"
            )


class NoisedLatents(Objective):
    """A frozen tokenizer with the scale of its latents, the process, and an encoder of texts if these are read."""

    order: tuple[str, ...] = ("text",)
    """Conditions in the order of guidance."""
    latent_scale: Tensor

    def __init__(self, config: NoisedLatentsConfig, *, text_width: int | None) -> None:
        """``text_width`` is the dimension of the texts' vectors; none for a method that reads none."""
        super().__init__()
        config.dropout.check(self.order)
        self.tokenizer = config.build_tokenizer().eval().requires_grad_(False)
        self.latent_dim: int = self.tokenizer.bottleneck.latent_dim
        self.num_frames, self.size = config.num_frames, config.size
        self.diffusion = config.diffusion.build()
        self.empty_length, self.text_sees_padding = len(config.empty_text), config.text_sees_padding
        self.text: FrozenT5 | TextEmbedding | None = None
        if text_width is not None:
            config.check_texts()
            self.text, self.text_in = self._text_encoder(config, text_width)
            empty = [*config.empty_text, *[config.text_padding] * (config.text_length - len(config.empty_text))]
            self.register_buffer("empty", torch.tensor([empty]), persistent=False)
        self.finds_scale = config.latent_scale is None
        scale = 0.0 if config.latent_scale is None else config.latent_scale
        self.register_buffer("latent_scale", torch.tensor(scale))  # zero until it is known

    def _text_encoder(self, config: NoisedLatentsConfig, width: int) -> tuple[FrozenT5 | TextEmbedding, nn.Module]:
        """The encoder of texts, and what makes vectors of ``width`` of its own."""
        if config.text is not None:
            return FrozenT5(config.text), self.text_projection(config.text.width, width)
        embedding = TextEmbedding(
            width,
            vocab_size=config.vocab_size,
            max_length=config.text_length,
            mask_id=config.text_padding,
            dropout=0.0,
        )
        return embedding, nn.Identity()

    def text_projection(self, given: int, width: int) -> nn.Module:
        """What makes vectors of ``width`` of a T5's, which have the dimension ``given``."""
        return nn.Linear(given, width)

    def train(self, mode: bool = True) -> Self:
        """Everything but the tokenizer goes into training mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @property
    def name(self) -> str:
        """Prefix of the names under which random numbers are drawn."""
        raise TypeError(f"{type(self).__name__} does not define name")

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Unscaled latents ``B T D h w`` of ``B T 3 H W`` video (in full precision)."""
        self.tokenizer.check(video)
        with torch.autocast(video.device.type, enabled=False):
            tokens = self.tokenizer.encode(video)
        t, h, w = tokens.grid
        return rearrange(tokens.latents, "b (t h w) d -> b t d h w", t=t, h=h, w=w)

    def latents(self, video: Tensor) -> Tensor:
        """Latents ``B T D h w`` of video, of about unit variance. In training the first ones decide the scale."""
        raw = self.encode(video)
        if self.training and self.finds_scale:
            known = self.latent_scale > 0
            self.latent_scale.copy_(torch.where(known, self.latent_scale, 1 / raw.float().std().clamp(min=1e-6)))
        return raw * self._scale()

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        """Video ``B T 3 H W`` in 0..1 of latents ``B T D h w``."""
        t, _, h, w = latents.shape[1:]
        tokens = rearrange(latents.float() / self._scale(), "b t d h w -> b (t h w) d")
        with torch.autocast(latents.device.type, enabled=False):
            return self.tokenizer.decode(Tokens(Grid(t, h, w), latents=tokens)).float().clamp(0, 1)

    def _scale(self) -> Tensor:
        return torch.where(self.latent_scale > 0, self.latent_scale, torch.ones_like(self.latent_scale))

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latents of frames."""
        _, h, w = self.tokenizer.patch_size
        return height // h, width // w

    def noise(self, seeds: Tensor, num_frames: int, size: tuple[int, int]) -> Tensor:
        """Noise ``B T D h w`` of each seed; the same for all sizes of a batch."""
        shape, use = (num_frames, self.latent_dim, *size), f"{self.name}.sample"
        return normal(seeds, math.prod(shape), use).view(-1, *shape)

    def read(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B L D`` of texts; those of padding are zero."""
        valid = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        assert self.text is not None, "only methods that read texts are given some"
        seen = torch.ones_like(valid) if self.text_sees_padding else valid
        vectors = self.text(ids, seen) if isinstance(self.text, FrozenT5) else self.text(ids)
        return self.text_in(vectors) * valid[..., None]

    def read_empty(self) -> Tensor:
        """Vectors ``1 L D`` of the empty text."""
        return self.read(self.empty, torch.tensor([self.empty_length], device=self.empty.device))

    def text_from_transformers(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.TextFromTransformers`."""
        return {f"text.{name}": w for name, w in FrozenT5.weights_of(theirs).items()}
