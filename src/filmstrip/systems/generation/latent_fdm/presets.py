"""Latent FDM's presets."""

from __future__ import annotations

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.models.video_unet import UNetArchitecture
from filmstrip.objectives.diffusion import ConditionDropout, DiffusionConfig
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.systems.generation.latent_fdm.model import FDMSampling, LatentFDMConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine

NOISE = DiffusionConfig(prediction="epsilon", schedule="linear", beta_start=1e-4, beta_end=0.02)
"""Published noise of flexible diffusion: a thousand times, variances from 0.0001 to 0.02."""
ALL_STEPS = FDMSampling(steps=1000, eta=1.0)
"""Published sampling: every time of training, with fresh noise."""


def tiny() -> Run:
    """Plain motions at 32 x 32 pixels, 6 of 12 frames of 8 x 8 latents at once; trains in seconds on two cores."""
    return Run(
        data=Data(
            synthetic=Motions(plain=True),
            clip=Clip(num_frames=12, stride=1, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=LatentFDMConfig(
            tokenizer=find("tokenizers.vae_kl:tiny").objective,
            untrained_tokenizer=True,
            num_frames=12,
            size=32,
            max_frames=6,
            unet=UNetArchitecture(widths=(32, 48), depth=1, attention_levels=(1,), head_dim=16, groups=8),
            diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True),
            sampling=FDMSampling(steps=10),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.0, schedule=Constant(warmup=0.05)),
        train=Loop(length=Steps(200)),
    )


def _paper(
    tokenizer: str,
    *,
    num_frames: int,
    size: int,
    actions: float | None,
    multiples: tuple[int, ...],
    depths: tuple[int, ...],
    width: int = 128,
    resolutions: tuple[int, ...] = (4, 2),
) -> Run:
    """A million steps of batches of 32, 1e-4; ``actions`` is the share of clips without, none for no actions.

    ``resolutions`` are those of levels with attention, of latents of 16 x 16.
    """
    unet = UNetArchitecture(
        widths=tuple(width * multiple for multiple in multiples),
        depths=depths,
        attention_levels=tuple(i for i in range(len(multiples)) if 16 >> i in resolutions),
        head_dim=64,
    )
    return Run(
        data=Data(
            clip=Clip(num_frames=num_frames, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=LatentFDMConfig(
            tokenizer=find(f"tokenizers.vae_kl:{tokenizer}").objective,
            num_frames=num_frames,
            size=size,
            max_frames=num_frames,
            unet=unet,
            diffusion=NOISE,
            conditions=() if actions is None else ("action",),
            num_actions=0 if actions is None else 3,
            dropout=ConditionDropout(table=(("action", actions),) if actions else ()),
            sampling=ALL_STEPS,
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.0, schedule=Cosine(warmup=0.01)),
        train=Loop(length=Steps(1_000_000), precision="bfloat16", clip_grad=None, ema=0.9999),
    )


def _dmlab(num_frames: int, **network: object) -> Run:
    return _paper("dmlab", num_frames=num_frames, size=64, actions=0.5, **network)


def _minecraft(num_frames: int, **network: object) -> Run:
    return _paper("minecraft", num_frames=num_frames, size=128, actions=0.0, **network)


def dmlab() -> Run:
    """DMLab-40k, all 300 frames of 64 x 64 at once, with and without actions."""
    return _dmlab(300, multiples=(1, 1, 1, 2), depths=(1, 1, 1, 2))


def dmlab_200() -> Run:
    """DMLab-40k, 200 frames: five levels, down to a single position."""
    return _dmlab(200, multiples=(1, 1, 2, 2, 4), depths=(1, 1, 2, 2, 4), resolutions=(4, 1))


def dmlab_100() -> Run:
    """DMLab-40k, 100 frames."""
    return _dmlab(100, multiples=(1, 2, 3, 4), depths=(2, 2, 2, 2))


def dmlab_50() -> Run:
    """DMLab-40k, 50 frames."""
    return _dmlab(50, width=192, multiples=(1, 2, 3, 4), depths=(3, 3, 3, 3), resolutions=(8, 4, 2))


def minecraft() -> Run:
    """Minecraft-200k, all 300 frames of 128 x 128 at once, with actions."""
    return _minecraft(300, multiples=(1, 2, 2, 2), depths=(1, 1, 2, 2))


def minecraft_200() -> Run:
    """Minecraft-200k, 200 frames."""
    return _minecraft(200, multiples=(1, 2, 3, 4), depths=(2, 2, 2, 2))


def minecraft_100() -> Run:
    """Minecraft-200k, 100 frames."""
    return _minecraft(100, multiples=(1, 2, 2, 3), depths=(3, 3, 3, 3), resolutions=(8, 4, 2))


def minecraft_50() -> Run:
    """Minecraft-200k, 50 frames."""
    return _minecraft(50, width=192, multiples=(1, 2, 3, 4), depths=(2, 2, 2, 2), resolutions=(8, 4, 2))


def habitat() -> Run:
    """Habitat, all 300 frames of 128 x 128 at once, with and without actions."""
    return _paper("habitat", num_frames=300, size=128, actions=0.5, multiples=(1, 2, 2, 4), depths=(1, 2, 2, 4))


def kinetics600() -> Run:
    """Kinetics-600, all 100 frames of 128 x 128 at once, no actions."""
    return _paper(
        "kinetics600",
        num_frames=100,
        size=128,
        actions=None,
        width=256,
        multiples=(1, 2, 3, 8),
        depths=(2, 2, 2, 2),
        resolutions=(8, 4, 2),
    )
