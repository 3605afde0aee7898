"""Training an autoencoder against a discriminator and a perceptual distance: VQ-GAN's loss, with any bottleneck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call

from filmstrip.bounds import Count, CountOrZero, Weight
from filmstrip.errors import UserError
from filmstrip.models.frame_autoencoder import FrameAutoencoder, FrameAutoencoderArchitecture
from filmstrip.models.perceptual import Perceptual
from filmstrip.nn.quantise import Bottleneck
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Loss, Phase, as_float
from filmstrip.weights.diffusers import to_diffusers
from filmstrip.weights.keymap import Weights

GanLoss = Literal["hinge", "log"]
_DELTA = 1e-6
_MAX_WEIGHT = 1e4  # of the adaptive weight, as published


class PatchDiscriminator(nn.Sequential):
    """Strided convolutions that judge overlapping patches of each frame (Isola et al. 2017).

    ``depth`` convolutions halve the frame, from ``width`` channels doubling up to ``max_width``. Group normalisation
    takes the place of the published batch normalisation, so that a frame is judged alone.
    """

    def __init__(self, *, width: int = 64, depth: int = 3, max_width: int = 512) -> None:
        widths = [min(width * 2**i, max_width) for i in range(depth + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            stride = 2 if i < depth - 1 else 1
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(min(8, outputs), outputs),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, video: Tensor) -> Tensor:
        """Logits ``(B T) 1 h w``, high for real, of ``B T C H W`` video in 0..1."""
        return super().forward(rearrange(video * 2 - 1, "b t c h w -> (b t) c h w"))


class AdversarialTokenizer(TokenizerObjective):
    """Absolute and perceptual error, the bottleneck's loss, and what a discriminator thinks of the result.

    Two phases: ``main`` trains autoencoder and bottleneck, ``discriminator`` the discriminator. The adversarial term
    starts after ``start`` steps; its weight makes its gradient at the decoder's last layer ``adversarial_weight``
    times as large as the errors' (Esser et al. 2021, equation 7).
    """

    training_only = ("discriminator", "perceptual")

    def __init__(
        self,
        config: AdversarialConfig,
        bottleneck: Bottleneck,
        perceptual: Callable[[Sequence[Path]], Perceptual],
    ) -> None:
        """``perceptual`` makes the network that compares features, of the configured files."""
        sizes = {"input_dim": bottleneck.input_dim, "latent_dim": bottleneck.latent_dim}
        autoencoder = FrameAutoencoder(config, **sizes)
        super().__init__(autoencoder, bottleneck)
        self.config = config
        self.discriminator = PatchDiscriminator(
            width=config.discriminator_width,
            depth=config.discriminator_depth,
            max_width=config.discriminator_max_width,
        )
        self.perceptual = perceptual(config.perceptual)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def to_diffusers(self) -> tuple[dict[str, Any], Weights]:
        """``VQModel`` or ``AutoencoderKL`` with these weights, without discriminator and perceptual network.

        Raises:
            UserError: frames are halved at other levels than theirs.
        """
        config, levels = self.config, len(self.config.widths)
        if config.halvings not in (None, levels - 1):
            raise UserError(
                f"networks of diffusers halve frames at all levels but the last, and this one at {config.halvings} "
                f"of {levels}"
            )
        attends = [level in config.attention_levels for level in range(levels)]
        described = {
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": list(config.widths),
            "layers_per_block": config.depth,
            "norm_num_groups": config.groups,
            "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attends],
            "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attends)],
            "latent_channels": self.bottleneck.latent_dim,
        }
        if self.codebook_size is not None:
            described |= {"num_vq_embeddings": self.codebook_size}
        if not config.middle_attention:
            described |= {"mid_block_add_attention": False}
        name = "AutoencoderKL" if self.codebook_size is None else "VQModel"
        return {"_class_name": name, **described}, to_diffusers(self.state_dict())

    def phases(self) -> tuple[Phase, ...]:
        """The autoencoder, then the discriminator, unless that counts for nothing."""
        main = Phase("main", (self.autoencoder, self.bottleneck))
        if not self.config.adversarial_weight:
            return (main,)
        return main, Phase("discriminator", (self.discriminator,))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch for one of the phases."""
        video = as_float(batch["video"])
        return self._judge(video) if phase == "discriminator" else self._rebuild(video)

    def _rebuild(self, video: Tensor) -> Loss:
        rebuilt, passage = self.pass_through(video)
        rebuilt = rebuilt.float()
        absolute = 2 * F.l1_loss(rebuilt, video)  # on the scale of pixels in -1..1
        errors, metrics = absolute, {"l1": absolute}
        if self.config.error == "squared":
            errors = 4 * F.mse_loss(rebuilt, video)
        if self.config.perceptual_weight:
            distance = self.perceptual(*(rearrange(v, "b t c h w -> (b t) c h w") for v in (rebuilt, video))).mean()
            errors = errors + self.config.perceptual_weight * distance
            metrics[self.perceptual.name] = distance
        total = errors + passage.loss
        if self.config.adversarial_weight:
            fooling, weight = self._fooling(rebuilt, errors)
            total = total + weight * fooling
            metrics |= {"adversarial": fooling, "adaptive_weight": weight}
        return Loss(total, {name: value.detach() for name, value in metrics.items()} | passage.metrics)

    def _fooling(self, rebuilt: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
        """What the discriminator thinks of a reconstruction, as a loss, and its weight."""
        # The discriminator passes gradients on and gets none itself: it has its own phase.
        detached = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        logits = functional_call(self.discriminator, detached, (rebuilt,)).float()
        fooling = -logits.mean() if self.config.gan_loss == "hinge" else F.softplus(-logits).mean()
        return fooling, self._adaptive_weight(errors, fooling) * self._started()

    def _adaptive_weight(self, errors: Tensor, fooling: Tensor) -> Tensor:
        """The ratio of the two gradients at the last layer, detached; zero where there are no gradients."""
        last = self.autoencoder.last_weight
        if not (errors.requires_grad and last.requires_grad):
            return errors.new_zeros(())
        of_errors, of_fooling = (
            torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (errors, fooling)
        )
        return self.config.adversarial_weight * (of_errors / (of_fooling + _DELTA)).clamp(max=_MAX_WEIGHT).detach()

    def _judge(self, video: Tensor) -> Loss:
        with torch.no_grad():
            rebuilt, _ = self.pass_through(video)
        real, made = self.discriminator(video).float(), self.discriminator(rebuilt.float()).float()
        if self.config.gan_loss == "hinge":
            loss = (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2
        else:
            loss = (F.softplus(-real).mean() + F.softplus(made).mean()) / 2
        metrics = {"logits_real": real.mean().detach(), "logits_made": made.mean().detach()}
        return Loss(loss * self._started(), metrics)

    def _started(self) -> Tensor:
        return (self.steps >= self.config.start).float()

    def after_step(self, step: int) -> None:
        """Count steps, and move the bottleneck on."""
        super().after_step(step)
        self.steps.fill_(step)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(FrameAutoencoderArchitecture, ObjectiveConfig):
    """The per-frame autoencoder, its discriminator, and the weights of their losses."""

    perceptual: tuple[Path, ...] = ()
    """Files with LPIPS's weights (VGG-16 and linear layers); without, random features stand in, and are named so."""
    error: Literal["absolute", "squared"] = "absolute"
    """Error of pixels: absolute, as published, or squared, by which small networks learn small things sooner."""
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

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The network of the perceptual distance, where files hold it."""
        return {"perceptual": FrozenPart("objective.perceptual", only_training=True)}

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
