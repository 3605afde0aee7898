"""Text to video by diffusion in a tokenizer's latent space: what every editor of video here is made of.

A frozen tokenizer of continuous latents, an encoder of texts (a frozen T5, or embeddings that are learnt), the U-Net
of :mod:`filmstrip.models.video_unet`, and the process of :mod:`filmstrip.objectives.diffusion`. Methods with further
conditions add them to the U-Net's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, CountOrZero, Rate, Weight
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.errors import UserError
from filmstrip.models.frozen_text import FrozenT5, T5Architecture
from filmstrip.models.text_embedding import TextEmbedding
from filmstrip.models.video_unet import (
    AttentionControl,
    VideoUNet,
    VideoUNetArchitecture,
    from_diffusers_unet,
    to_diffusers_unet,
)
from filmstrip.objectives.config import FrozenPart
from filmstrip.objectives.diffusion import ConditionDropout, Conditions, DiffusionConfig, guided_in_order
from filmstrip.objectives.diffusion_sampling import DiffusionSampling, OnStep, Predict, denoise, invert
from filmstrip.objectives.latent import LatentConfig
from filmstrip.protocols import Batch, Grid, Loss, Objective, Tokens, check_video
from filmstrip.randomness import normal
from filmstrip.settings import FREE
from filmstrip.weights.keymap import Weights

STABLE_DIFFUSION_SCALE = 0.18215
"""Factor of the latents of Stable Diffusion's autoencoder (Rombach et al. 2022)."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Scales of classifier-free guidance: 1 is the conditional prediction alone, 0 leaves a condition out."""

    text: AnyNumber = 7.5


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig(LatentConfig):
    """The U-Net, its conditions, the process and how samples are drawn."""

    continuous: ClassVar[bool] = True
    has_text_run: ClassVar[bool] = True

    unet: VideoUNetArchitecture = field(default_factory=VideoUNetArchitecture)
    """Network of noised latents."""
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
    latent_scale: Rate | None = None
    """Factor of the tokenizer's latents; by default one over the standard deviation of those of the first batch."""
    still_weight: Weight = 0.0
    """Weight of the loss of each clip's first frame alone, as an image: a network that learns it edits images."""
    sampling: DiffusionSampling = field(default_factory=DiffusionSampling, metadata=FREE)
    """How samples are drawn, unless it is said otherwise."""
    guidance: Guidance = field(default_factory=Guidance, metadata=FREE)
    """Scales of guidance, unless it is said otherwise."""

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
        """See :meth:`LatentConfig.with_tokenizer_of_hub`: also with the factor of latents that it states."""
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

    def check(self) -> None:
        """See that something is known of texts.

        Raises:
            UserError: nothing is.
        """
        if not self.vocab_size:
            raise UserError(
                f"{type(self).__name__} needs captioned clips (--data.reads captioned), or objective.vocab_size"
            )

    def build(self) -> LatentDiffusion:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, or sizes do not fit.
        """
        self.check()
        return LatentDiffusion(self)


@dataclass
class Known:
    """What is known of clips beside their noised latents, computed once for all steps; subclasses know more."""

    context: Tensor
    """The text's vectors, ``B L D``."""
    no_context: Tensor
    """Those of the empty text, ``1 L D``."""

    @property
    def batch_size(self) -> int:
        """Number of clips."""
        return len(self.context)


class LatentDiffusion(Objective):
    """Noised latents of captioned clips, and what a U-Net predicts of them given the text; samples and inversion."""

    order: tuple[str, ...] = ("text",)
    """Conditions in the order of guidance."""
    requires = ("video", "text", "text_length", "seed")
    latent_scale: Tensor

    def __init__(self, config: LatentDiffusionConfig, *, condition_maps: int = 0) -> None:
        """``condition_maps`` is the number of further latents that the U-Net reads beside the noised ones."""
        super().__init__()
        config.dropout.check(self.order)
        self.config = config
        self.tokenizer = config.build_tokenizer().eval().requires_grad_(False)
        self.latent_dim: int = self.tokenizer.bottleneck.latent_dim
        self.num_frames, self.size = config.num_frames, config.size
        self.diffusion = config.diffusion.build()
        width = config.unet.context_width
        self.text: FrozenT5 | TextEmbedding
        self.text_in: nn.Module
        if config.text is not None:
            self.text = FrozenT5(config.text)
            self.text_in = nn.Linear(config.text.width, width)
        else:
            self.text = TextEmbedding(
                width,
                vocab_size=config.vocab_size,
                max_length=config.text_length,
                mask_id=config.text_padding,
                dropout=0.0,
            )
            self.text_in = nn.Identity()
        channels = self.latent_dim * (1 + condition_maps)
        self.unet = VideoUNet(config.unet, inputs=channels, outputs=self.latent_dim)
        if condition_maps:  # a network of the text alone starts this one
            nn.init.zeros_(self.unet.conv_in.weight[:, self.latent_dim :].detach())
        empty = [*config.empty_text, *[config.text_padding] * (config.text_length - len(config.empty_text))]
        self.register_buffer("empty", torch.tensor([empty]), persistent=False)
        scale = 0.0 if config.latent_scale is None else config.latent_scale
        self.register_buffer("latent_scale", torch.tensor(scale))  # zero until it is known

    def train(self, mode: bool = True) -> Self:
        """Everything but the tokenizer goes into training mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @property
    def name(self) -> str:
        """Prefix of the names under which random numbers are drawn."""
        return "latent_diffusion"

    # Latents and texts

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Unscaled latents ``B T D h w`` of ``B T 3 H W`` video (in full precision)."""
        check_video(video, multiple=self.tokenizer.patch_size)
        with torch.autocast(video.device.type, enabled=False):
            tokens = self.tokenizer.encode(video)
        t, h, w = tokens.grid
        return rearrange(tokens.latents, "b (t h w) d -> b t d h w", t=t, h=h, w=w)

    def latents(self, video: Tensor) -> Tensor:
        """Latents ``B T D h w`` of video, of about unit variance. In training the first ones decide the scale."""
        raw = self.encode(video)
        if self.training and self.config.latent_scale is None:
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

    def read(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B L D`` of texts; those of padding are zero."""
        valid = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        vectors = self.text(ids, valid) if isinstance(self.text, FrozenT5) else self.text(ids)
        return self.text_in(vectors) * valid[..., None]

    def read_empty(self) -> Tensor:
        """Vectors ``1 L D`` of the empty text."""
        return self.read(self.empty, torch.tensor([len(self.config.empty_text)], device=self.empty.device))

    # What is known, and the network under a part of it

    def told(self, context: Tensor) -> Known:
        """Texts alone, as their vectors ``B L D``: of videos, or of images."""
        return Known(context, self.read_empty())

    def known(self, batch: Batch, latents: Tensor) -> Known:
        """What a batch says beside its ``latents`` (``B T D h w``)."""
        return self.told(self.read(batch["text"], batch["text_length"]))

    def inputs(self, known: Known, x: Tensor, absent: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """The U-Net's input, its text and the vector added to the time's, where rows (``B`` bool) are ``absent``."""
        context = torch.where(absent["text"][:, None, None], known.no_context, known.context)
        return x, context, None

    def run(
        self, known: Known, x: Tensor, time: Tensor, absent: Mapping[str, Tensor], control: AttentionControl | None
    ) -> Tensor:
        """The U-Net's output ``B T D h w`` for noised latents."""
        x, context, added = self.inputs(known, x, absent)
        return self.unet(x, time, context, added=added, control=control)

    def predictor(
        self,
        known: Known,
        scales: Mapping[str, float],
        control: Callable[[Conditions], AttentionControl | None] = lambda given: None,
        *,
        order: Sequence[str] | None = None,
    ) -> Predict:
        """The guided network; ``control`` says who looks at attention, by the conditions that a call has. Conditions
        that an ``order`` leaves out are not given."""

        def predict(x: Tensor, time: Tensor) -> Tensor:
            def call(given: Conditions) -> Tensor:
                absent = {name: torch.full((len(x),), name not in given, device=x.device) for name in self.order}
                return self.run(known, x, time, absent, control(given)).float()

            return guided_in_order(call, order or self.order, scales)

        return predict

    # Learning

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Squared error of what is predicted of noised clips, and of their first frames alone if they are learnt."""
        latents = self.latents(batch["video"])
        known = self.known(batch, latents)
        losses = self.losses(batch, known, latents, "clip")
        metrics = {"error": losses.mean().detach()}
        total = losses.mean()
        if self.config.still_weight:
            still = self.losses(batch, self.told(known.context), latents[:, :1], "still").mean()
            total = total + self.config.still_weight * still
            metrics["still_error"] = still.detach()
        return Loss(total, metrics)

    def losses(self, batch: Batch, known: Known, latents: Tensor, use: str) -> Tensor:
        """The squared error of each clip's ``latents``, noised and denied conditions as seed and ``use`` say."""
        seeds, use = batch["seed"], f"{self.name}.{use}"
        absent = self.config.dropout.draw(seeds, self.order, f"{use}.dropout")
        losses, _ = self.diffusion.losses(lambda x, time: self.run(known, x, time, absent, None), latents, seeds, use)
        return losses

    # Sampling

    def noise(self, seeds: Tensor, num_frames: int, size: tuple[int, int]) -> Tensor:
        """Noise ``B T D h w`` of each seed; the same for all sizes of a batch."""
        shape, use = (num_frames, self.latent_dim, *size), f"{self.name}.sample"
        return normal(seeds, math.prod(shape), use).view(-1, *shape)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latents of frames."""
        _, h, w = self.tokenizer.patch_size
        return height // h, width // w

    def denoise(
        self,
        known: Known,
        noisy: Tensor,
        scales: Mapping[str, float],
        sampling: DiffusionSampling | None = None,
        *,
        first: int = 0,
        order: Sequence[str] | None = None,
        control: Callable[[Conditions], AttentionControl | None] = lambda given: None,
        on_step: OnStep | None = None,
        seeds: Tensor | None = None,
    ) -> Tensor:
        """Latents ``B T D h w`` of noisy ones, by the guided network; see :func:`diffusion_sampling.denoise`."""
        predict = self.predictor(known, scales, control, order=order)
        return denoise(
            self.diffusion,
            predict,
            noisy,
            sampling or self.config.sampling,
            first=first,
            seeds=seeds,
            on_step=on_step,
        )

    def invert(self, known: Known, latents: Tensor, sampling: DiffusionSampling | None = None) -> list[Tensor]:
        """Where sampling would have to begin and go through to end at ``latents``, by the text without guidance."""
        predict = self.predictor(known, {"text": 1.0}, order=("text",))
        return invert(self.diffusion, predict, latents, sampling or self.config.sampling)

    # Weights

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The U-Net from one of ``diffusers``, of video or of images; of the latter temporal layers stay as they are.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        return {f"unet.{name}": w for name, w in from_diffusers_unet(theirs, self.unet.state_dict()).items()}

    def text_from_transformers(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.TextFromTransformers`."""
        return {f"text.{name}": w for name, w in FrozenT5.weights_of(theirs).items()}

    def taken_from(self, given: Objective) -> dict[str, Tensor] | None:
        """The U-Net of a network with fewer conditions, or without temporal layers, and what is around it: what both
        have."""
        if not isinstance(given, LatentDiffusion):
            return None
        own, there = self.state_dict(), given.state_dict()
        parts = ("tokenizer.", "text_in.", *(() if isinstance(self.text, FrozenT5) else ("text.",)))
        taken = {name: w for name, w in there.items() if name.startswith(parts) and name in own}
        unet = {name.removeprefix("unet."): w for name, w in there.items() if name.startswith("unet.")}
        mapped = from_diffusers_unet(to_diffusers_unet(unet), self.unet.state_dict())
        taken |= {f"unet.{name}": w for name, w in mapped.items()}
        if self.config.latent_scale is None:
            taken["latent_scale"] = there["latent_scale"]
        return taken

    def depth_of(self, name: str) -> int:
        """The U-Net's layers; text and conditions come first."""
        part, _, rest = name.partition(".")
        return self.unet.depth_of(rest) if part == "unet" else 0
