"""Discrete VAE: each frame becomes a grid of codes, chosen by a Gumbel-softmax that sharpens during training.

The encoder gives logits over codes; the decoder sees a mixture of codes while training and one code afterwards, and
says how likely each pixel is (logit-Laplace). A divergence from uniform codes keeps them all in use.
Ramesh et al., "Zero-Shot Text-to-Image Generation" (DALL-E), ICML 2021, appendix A.

    filmstrip train tokenizers.dvae:dalle --data.path PATH

Where we deviate: the published learning rate reaches its minimum after 1.2 of 3 million steps, ours at the end; the
loss is a mean over pixel values, so that the divergence is weighed by the published 6.6 over the 192 values of a
code's patch. The published encoder and decoder load through ``filmstrip.weights.dvae``.

The paper found a final temperature of 1/16 enough to close the gap between relaxed and single codes. We measured,
with ``python claims/dvae_temperature.py`` (motions at 32 x 32, 256 codes, 300 steps, one seed): single codes have
1.01 times the error of relaxed ones after annealing, and 1.40 times at a constant temperature of 1, where relaxed
codes do better (0.73 of the variance against 0.84) and single ones worse (1.03 against 0.85). So short a training
leaves 2 to 4% of the codes in use either way, as it does with straight-through codes (2%, error 0.81).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.models.dvae import DVAEAutoencoder, squeeze_pixels, stretch_pixels
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Loss, as_float
from filmstrip.runs.config import ObjectiveConfig, Run
from filmstrip.train.config import Loop, Optim


def logit_laplace(pixels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log-density, elementwise, of pixels between 0 and 1 whose logit is Laplace-distributed."""
    distance = (torch.logit(pixels) - mean).abs()
    return log_scale + (2 * pixels * (1 - pixels)).log() + distance * (-log_scale).exp()


class DVAE(TokenizerObjective):
    """Logit-Laplace likelihood, and what the codebook adds."""

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch; also logs the mean squared error of what is shown."""
        video = as_float(batch["video"])
        decoded, passage = self.pass_through(video)
        decoded = decoded.float()
        mean, log_scale = decoded.chunk(2, dim=2)
        nats = logit_laplace(squeeze_pixels(video), mean, log_scale).mean()
        with torch.no_grad():
            error = (self.pixels(decoded) - video).square().mean()
        return Loss(nats + passage.loss, {"nats": nats.detach(), "mse": error, **passage.metrics})

    def pixels(self, decoded: Tensor) -> Tensor:
        """The median of each pixel's distribution."""
        return stretch_pixels(decoded[:, :, :3].sigmoid())


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(ObjectiveConfig):
    """The network and its codebook; the defaults are DALL-E's."""

    width: Count = 256
    """Channels at full resolution; they double whenever the frame is halved."""
    num_groups: Count = 4
    """Groups of residual blocks, between which the frame is halved."""
    depth: Count = 2
    """Residual blocks in a group."""
    codebook: Codebook = field(default_factory=lambda: Codebook(kind="gumbel", size=8192, dim=128))

    def build(self) -> DVAE:
        """Build the network with fresh weights."""
        quantiser = self.codebook.build()
        autoencoder = DVAEAutoencoder(
            input_dim=quantiser.input_dim,
            latent_dim=quantiser.latent_dim,
            width=self.width,
            num_groups=self.num_groups,
            depth=self.depth,
        )
        return DVAE(autoencoder, quantiser)


def tiny() -> Run:
    """Motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=2, stride=8, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=DVAEConfig(
            width=16,
            num_groups=3,
            depth=1,
            codebook=Codebook(kind="gumbel", size=64, dim=16, kl_weight=0.01, warmup_steps=10, anneal_steps=80),
        ),
        optim=Optim(lr=2e-3, weight_decay=0.0),
        train=Loop(steps=100),
    )


def dalle() -> Run:
    """DALL-E's: frames of 256 x 256 as 32 x 32 codes of 8192."""
    return Run(
        data=Data(
            clip=Clip(num_frames=1, stride=1, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.5),
            batch_size=512,
            num_workers=10,
        ),
        objective=DVAEConfig(),
        optim=Optim(lr=1e-4, weight_decay=1e-4, warmup=0.0, final=1.25e-6 / 1e-4),
        train=Loop(steps=3_000_000, precision="float16", clip_grad=None, ema=0.999),
    )
