"""Text to video by a U-Net in a tokenizer's latent space: what every editor of video here is made of.

What is around the network is :mod:`filmstrip.objectives.noised_latents`; the U-Net is that of
:mod:`filmstrip.models.video_unet`. Methods with further conditions add them to its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Weight
from filmstrip.errors import UserError
from filmstrip.models.frozen_text import FrozenT5
from filmstrip.models.video_unet import (
    AttentionControl,
    VideoUNet,
    VideoUNetArchitecture,
    from_diffusers_unet,
    to_diffusers_unet,
)
from filmstrip.objectives.diffusion import Conditions, guided_in_order
from filmstrip.objectives.diffusion_sampling import DiffusionSampling, OnStep, Predict, denoise, invert
from filmstrip.objectives.noised_latents import NoisedLatents, NoisedLatentsConfig
from filmstrip.protocols import Batch, Loss, Objective
from filmstrip.settings import FREE
from filmstrip.weights.keymap import Weights


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Scales of classifier-free guidance: 1 is the conditional prediction alone, 0 leaves a condition out."""

    text: AnyNumber = 7.5


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig(NoisedLatentsConfig):
    """The U-Net and its scales of guidance."""

    unet: VideoUNetArchitecture = field(default_factory=VideoUNetArchitecture)
    """Network of noised latents."""
    still_weight: Weight = 0.0
    """Weight of the loss of each clip's first frame alone, as an image: a network that learns it edits images."""
    guidance: Guidance = field(default_factory=Guidance, metadata=FREE)
    """Scales of guidance, unless it is said otherwise."""

    def build(self) -> LatentDiffusion:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, sizes do not fit, or the tokenizer codes frames together.
        """
        return LatentDiffusion(self)

    def with_network_of(self, other: LatentDiffusionConfig) -> Self:
        """These settings of editing, with the network, latents, texts and sampling of another method."""
        shared = {f.name: getattr(other, f.name) for f in fields(LatentDiffusionConfig) if f.name != "dropout"}
        return replace(self, **shared | {"guidance": Guidance(text=other.guidance.text)})


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


class LatentDiffusion(NoisedLatents):
    """Noised latents of captioned clips, and what a U-Net predicts of them given the text; samples and inversion."""

    requires = ("video", "text", "text_length", "seed")
    edits_first_frame: ClassVar[bool] = False
    """Whether an edit begins with the first frame, as an image."""
    reads_source_text: ClassVar[bool] = False
    """Whether an edit needs the text of what the video shows."""
    reads_depth: ClassVar[bool] = False
    """Whether an edit needs depth maps of the video."""

    def __init__(self, config: LatentDiffusionConfig, *, condition_maps: int = 0) -> None:
        """``condition_maps`` is the number of further latents that the U-Net reads beside the noised ones."""
        super().__init__(config, text_width=config.unet.context_width)
        if (together := self.tokenizer.patch_size[0]) > 1:
            raise UserError(
                f"{type(config.tokenizer).__name__} codes {together} frames together, and this network has a latent "
                "of each: give a tokenizer of single frames (tokenizers.vae_kl)"
            )
        self.config = config
        channels = self.latent_dim * (1 + condition_maps)
        self.unet = VideoUNet(config.unet, inputs=channels, outputs=self.latent_dim)
        if condition_maps:  # a network of the text alone starts this one
            nn.init.zeros_(self.unet.conv_in.weight[:, self.latent_dim :].detach())

    @property
    def name(self) -> str:
        """Prefix of the names under which random numbers are drawn."""
        return "latent_diffusion"

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

    def of_text_alone(self) -> dict[str, Tensor]:
        """The state of the network of texts alone that this one is where nothing else is known."""
        return self.state_dict()

    def taken_from(self, given: Objective) -> dict[str, Tensor] | None:
        """The U-Net of a network with fewer conditions, or without temporal layers, and what is around it: what both
        have. Of one with more conditions than the text, for one of the text alone, what it is without them."""
        if not isinstance(given, LatentDiffusion):
            return None
        own = self.state_dict()
        there = given.of_text_alone() if self.order == ("text",) else given.state_dict()
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
