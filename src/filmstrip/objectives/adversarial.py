"""Training an autoencoder against a discriminator and a perceptual distance: VQ-GAN's loss, with any bottleneck."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Weight
from filmstrip.models.discriminator import PatchDiscriminator
from filmstrip.models.frame_autoencoder import FrameAutoencoder
from filmstrip.models.perceptual import Perceptual
from filmstrip.nn.quantise import Bottleneck
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Loss, Phase, as_float
from filmstrip.runs.config import ObjectiveConfig
from filmstrip.weights.lpips import load_perceptual

GanLoss = Literal["hinge", "log"]
_DELTA = 1e-6
_MAX_WEIGHT = 1e4  # of the adaptive weight, as published


class AdversarialTokenizer(TokenizerObjective):
    """Absolute and perceptual error, the bottleneck's loss, and what a discriminator thinks of the result.

    Two phases: ``main`` trains autoencoder and bottleneck, ``discriminator`` the discriminator. The adversarial term
    starts after ``start`` steps; its weight makes its gradient at the decoder's last layer ``adversarial_weight``
    times as large as the errors' (Esser et al. 2021, equation 7).
    """

    training_only = ("discriminator", "perceptual")

    def __init__(
        self,
        autoencoder: FrameAutoencoder,
        bottleneck: Bottleneck,
        discriminator: nn.Module,
        perceptual: Perceptual,
        *,
        perceptual_weight: float,
        adversarial_weight: float,
        start: int,
        gan_loss: GanLoss,
    ) -> None:
        super().__init__(autoencoder, bottleneck)
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.start = start
        self.gan_loss = gan_loss
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def phases(self) -> tuple[Phase, ...]:
        """The autoencoder, then the discriminator."""
        return (
            Phase("main", (self.autoencoder, self.bottleneck)),
            Phase("discriminator", (self.discriminator,)),
        )

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch for one of the phases."""
        video = as_float(batch["video"])
        return self._judge(video) if phase == "discriminator" else self._rebuild(video)

    def _rebuild(self, video: Tensor) -> Loss:
        rebuilt, passage = self.pass_through(video)
        rebuilt = rebuilt.float()
        error = 2 * F.l1_loss(rebuilt, video)  # on the scale of pixels in -1..1
        distance = self.perceptual(*(rearrange(v, "b t c h w -> (b t) c h w") for v in (rebuilt, video))).mean()
        errors = error + self.perceptual_weight * distance
        # The discriminator passes gradients on and gets none itself: it has its own phase.
        detached = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        logits = functional_call(self.discriminator, detached, (rebuilt,)).float()
        fooling = -logits.mean() if self.gan_loss == "hinge" else F.softplus(-logits).mean()
        weight = self._adaptive_weight(errors, fooling) * self._started()
        metrics = {"l1": error, self.perceptual.name: distance, "adversarial": fooling, "adaptive_weight": weight}
        total = errors + passage.loss + weight * fooling
        return Loss(total, {name: value.detach() for name, value in metrics.items()} | passage.metrics)

    def _adaptive_weight(self, errors: Tensor, fooling: Tensor) -> Tensor:
        """The ratio of the two gradients at the last layer, detached; zero where there are no gradients."""
        last = self.autoencoder.last_weight
        if not (errors.requires_grad and last.requires_grad):
            return errors.new_zeros(())
        of_errors, of_fooling = (
            torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (errors, fooling)
        )
        return self.adversarial_weight * (of_errors / (of_fooling + _DELTA)).clamp(max=_MAX_WEIGHT).detach()

    def _judge(self, video: Tensor) -> Loss:
        with torch.no_grad():
            rebuilt, _ = self.pass_through(video)
        real, made = self.discriminator(video).float(), self.discriminator(rebuilt.float()).float()
        if self.gan_loss == "hinge":
            loss = (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2
        else:
            loss = (F.softplus(-real).mean() + F.softplus(made).mean()) / 2
        metrics = {"logits_real": real.mean().detach(), "logits_made": made.mean().detach()}
        return Loss(loss * self._started(), metrics)

    def _started(self) -> Tensor:
        return (self.steps >= self.start).float()

    def after_step(self, step: int) -> None:
        """Count steps, and move the bottleneck on."""
        super().after_step(step)
        self.steps.fill_(step)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(ObjectiveConfig):
    """The per-frame autoencoder, its discriminator, and the weights of their losses."""

    widths: Annotated[tuple[Count, ...], NotEmpty] = (128, 128, 256, 512)
    """Channels of each level."""
    depth: Count = 2
    """Residual blocks in each level of the encoder; the decoder has one more."""
    halvings: CountOrZero | None = None
    """Levels, from the first, that halve the frame; by default all but the last."""
    attention_levels: tuple[CountOrZero, ...] = ()
    """Levels with attention, counted from 0 at full resolution; the middle always has it."""
    groups: Count = 32
    """Of the group normalisation."""
    perceptual: tuple[Path, ...] = ()
    """Files with LPIPS's weights (VGG-16 and linear layers); without, random features stand in, and are named so."""
    perceptual_weight: Weight = 1.0
    adversarial_weight: Weight = 0.8
    """Size of the adversarial gradient relative to the errors', at the last layer."""
    start: CountOrZero = 50_000
    """Steps before the discriminator joins."""
    gan_loss: GanLoss = "hinge"
    """``hinge``, or ``log``: the logarithmic loss, without the saturating form for the autoencoder."""
    discriminator_width: Count = 64
    discriminator_depth: Count = 3
    """Convolutions that halve the frame."""
    discriminator_max_width: Count = 512

    @classmethod
    def small(cls, **bottleneck: object) -> Self:
        """Networks for frames of 32 x 32 that train in seconds on two CPU cores."""
        return cls(
            widths=(16, 32, 32),
            depth=1,
            groups=8,
            start=0,
            adversarial_weight=0.1,
            gan_loss="log",
            discriminator_width=16,
            discriminator_depth=2,
            **bottleneck,
        )

    def build_around(self, bottleneck: Bottleneck) -> AdversarialTokenizer:
        """Build the networks, with fresh weights, around a bottleneck."""
        autoencoder = FrameAutoencoder(
            input_dim=bottleneck.input_dim,
            latent_dim=bottleneck.latent_dim,
            widths=self.widths,
            depth=self.depth,
            halvings=self.halvings,
            attention_levels=self.attention_levels,
            groups=self.groups,
        )
        discriminator = PatchDiscriminator(
            width=self.discriminator_width, depth=self.discriminator_depth, max_width=self.discriminator_max_width
        )
        return AdversarialTokenizer(
            autoencoder,
            bottleneck,
            discriminator,
            load_perceptual(self.perceptual),
            perceptual_weight=self.perceptual_weight,
            adversarial_weight=self.adversarial_weight,
            start=self.start,
            gan_loss=self.gan_loss,
        )
