"""VAE: each frame becomes a small grid of continuous latents, close to a standard normal.

VQ-GAN's autoencoder and loss, with a Gaussian bottleneck and a slight divergence from the prior in the codebook's
place: what diffusion models in a latent space are trained on.
Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022; the presets are those of
TECO's baselines (Yan et al. 2023, appendix B.14).

    filmstrip train tokenizers.vae_kl:minecraft --data.path PATH --objective.perceptual vgg16.pth lpips_vgg.pth

``--init FILE`` begins with the weights of an ``AutoencoderKL`` of ``diffusers``.

Where we deviate: errors and divergence are means over values, not sums over a clip, and the error has no learnt
variance; otherwise as VQ-GAN here, whose remarks on the presets hold.

Measured here (``filmstrip claims vqgan_sharpness``, mazes at 32 x 32, 100 steps, mean of three seeds): 17.9 dB with
latents of 4 channels, where VQ-GAN's 256 codes on the same grid give 17.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from filmstrip.bounds import Count, Weight
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.edits import EditedScenes
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.nn.gaussian import Gaussian
from filmstrip.objectives.adversarial import AdversarialConfig, AdversarialTokenizer
from filmstrip.objectives.perceptual import load_perceptual
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant
from filmstrip.weights.diffusers import from_diffusers
from filmstrip.weights.keymap import Weights


class VAEKL(AdversarialTokenizer):
    """The loss with a Gaussian between encoder and decoder."""

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The autoencoder from an ``AutoencoderKL`` of ``diffusers``.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        return from_diffusers(theirs, self.state_dict().keys())


@dataclass(frozen=True, kw_only=True)
class VAEKLConfig(AdversarialConfig):
    """The networks around a Gaussian bottleneck."""

    latent_dim: Count = 4
    """Number of channels of a latent."""
    kl_weight: Weight = 1e-6
    """Weight of the KL divergence from a standard normal, in nats per latent channel."""

    def of_hub(
        self, config: Mapping[str, Any], statistics: Mapping[str, Any] | None, source: str
    ) -> tuple[VAEKLConfig, int]:
        """See :meth:`ObjectiveConfig.of_hub`: the networks of an ``AutoencoderKL`` of ``diffusers``."""
        if (kind := config.get("_class_name")) != "AutoencoderKL":
            raise UserError(f"{source} is a {kind or 'model of unknown type'}: give an AutoencoderKL of diffusers")
        if config.get("use_quant_conv") is False or config.get("use_post_quant_conv") is False:
            raise UserError(f"{source} has no convolutions around its latents, which this network has")
        blocks = config.get("down_block_types", ())
        own = replace(
            self,
            widths=tuple(config["block_out_channels"]),
            depth=config.get("layers_per_block", 1),
            groups=config.get("norm_num_groups", 32),
            latent_dim=config.get("latent_channels", 4),
            halvings=None,
            attention_levels=tuple(i for i, block in enumerate(blocks) if block.startswith("Attn")),
        )
        return own, config.get("sample_size", 256)

    def build(self) -> VAEKL:
        """Build the networks with fresh weights."""
        return VAEKL(self, Gaussian(self.latent_dim, kl_weight=self.kl_weight), load_perceptual)


def tiny() -> Run:
    """Motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=2, stride=8, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=VAEKLConfig.small(),
        optim=AdamW(lr=2e-3, weight_decay=0.0, betas=(0.5, 0.9)),
        train=Loop(length=Steps(100), clip_grad=None),
    )


def scenes() -> Run:
    """Edited scenes at 32 x 32 pixels, for editors of them: minutes on a laptop.

    Convolutions over squares of 4 x 4 pixels, and the squared error alone. With nearly these settings frames of 48
    unseen clips had 28.2 dB after 86 s of processor time (one seed, 16 frames a step); two halvings from 16 channels
    to latents of 4, by the absolute error, had 22.6 dB after 152 s, and what moves was a blur in them.
    """
    return Run(
        data=Data(
            synthetic=EditedScenes(),
            clip=Clip(num_frames=2, stride=4, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=8,
        ),
        objective=VAEKLConfig(
            widths=(64,),
            depth=1,
            groups=8,
            patch=4,
            middle_attention=False,
            latent_dim=8,
            kl_weight=1e-5,
            error="squared",
            perceptual_weight=0.0,
            adversarial_weight=0.0,
        ),
        optim=AdamW(lr=3e-3, weight_decay=0.0, betas=(0.5, 0.9)),
        train=Loop(length=Steps(1500), clip_grad=1.0),
    )


def stable_diffusion() -> Run:
    """Stable Diffusion's autoencoder: 256 x 256 frames to 32 x 32 latents of 4 channels (Rombach et al. 2022).

    The network is that of the published ``AutoencoderKL``; rate and discriminator are those of latent diffusion's
    ``autoencoder_kl_32x32x4``: 4.5e-6 for each of 12 frames, and 50,001 steps before the discriminator joins.
    """
    return Run(
        data=Data(
            clip=Clip(num_frames=1, stride=1, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.5),
            batch_size=12,
        ),
        objective=VAEKLConfig(widths=(128, 256, 512, 512), adversarial_weight=0.5, start=50_001),
        optim=AdamW(lr=12 * 4.5e-6, weight_decay=0.0, betas=(0.5, 0.9), schedule=Constant()),
        train=Loop(length=Steps(500_000), clip_grad=None),
    )


def _teco(*, size: int, **network: object) -> Run:
    """TECO's baselines: single frames, batches of 64, 3e-4, 16 x 16 latents."""
    return Run(
        data=Data(
            clip=Clip(num_frames=1, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=64,
        ),
        objective=VAEKLConfig(adversarial_weight=1.0, start=0, gan_loss="log", **network),
        optim=AdamW(lr=3e-4, weight_decay=0.0, betas=(0.5, 0.9), schedule=Constant()),
        train=Loop(length=Steps(500_000), clip_grad=None),
    )


def dmlab() -> Run:
    """For DMLab: 64 x 64 frames, 4 channels."""
    return _teco(size=64, widths=(128, 256, 256, 256), halvings=2, attention_levels=(2, 3))


def minecraft() -> Run:
    """For Minecraft: 128 x 128 frames, 4 channels."""
    return _teco(size=128, widths=(128, 256, 256, 256), attention_levels=(3,))


def habitat() -> Run:
    """For Habitat: 128 x 128 frames, 8 channels."""
    return _teco(size=128, latent_dim=8, widths=(128, 256, 384, 512), attention_levels=(3,))


def kinetics600() -> Run:
    """For Kinetics-600: Habitat's network."""
    return _teco(size=128, latent_dim=8, widths=(128, 256, 384, 512), attention_levels=(3,))
