"""VDT's presets, and those of published text-to-video models."""

from __future__ import annotations

from typing import Any

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.edits import EditedScenes
from filmstrip.data.synthetic.motions import Motions
from filmstrip.models.frozen_text import T5Architecture
from filmstrip.models.video_dit import VideoDiTArchitecture
from filmstrip.objectives.diffusion import ConditionDropout, DiffusionConfig
from filmstrip.objectives.noised_latents import STABLE_DIFFUSION_SCALE
from filmstrip.objectives.video_autoencoder import VideoAutoencoderConfig
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.systems.generation.vdt.model import GuidedSampling, VDTConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant

NOISE = DiffusionConfig(prediction="epsilon", schedule="linear", beta_start=1e-4, beta_end=0.02)
"""Published noise: a thousand times, variances from 0.0001 to 0.02."""
DROPOUT = ConditionDropout(table=(("text", 0.1),))
"""The text is left out of a tenth of the examples, so that guidance has something to go by."""


def tiny() -> Run:
    """Plain motions at 32 x 32 pixels, 8 frames of 8 x 8 latents; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(plain=True),
            clip=Clip(num_frames=8, stride=2, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=VDTConfig(
            tokenizer=find("tokenizers.vae_kl:tiny").objective,
            untrained_tokenizer=True,
            num_frames=8,
            size=32,
            transformer=VideoDiTArchitecture(width=64, depth=2, num_heads=4, mlp_width=128),
            diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True),
            given_frames=2,
            sampling=GuidedSampling(steps=10),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.0, schedule=Constant(warmup=0.05)),
        train=Loop(length=Steps(200)),
    )


def tiny_text() -> Run:
    """Captioned scenes at 32 x 32 pixels by Latte's network: alternating blocks that read words."""
    return Run(
        data=Data(
            synthetic=EditedScenes(size=32, num_train=200, num_test=8),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=8, stride=1, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=8,
        ),
        objective=VDTConfig(
            tokenizer=find("tokenizers.vae_kl:tiny").objective,
            untrained_tokenizer=True,
            num_frames=8,
            size=32,
            transformer=VideoDiTArchitecture(
                width=48,
                depth=2,
                num_heads=4,
                mlp_width=192,
                attention="alternating",
                modulation="shared",
                context_width=32,
            ),
            diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True),
            dropout=DROPOUT,
            tasks=(("generate", 1.0), ("predict", 1.0)),
            given_frames=1,
            sampling=GuidedSampling(steps=10),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.0, schedule=Constant(warmup=0.05)),
        train=Loop(length=Steps(200)),
    )


def _at(size: int, **network: int) -> Run:
    """16 frames, by the published masks and noise; rate, batch and averaging are DiT's."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.5),
            batch_size=256,
        ),
        objective=VDTConfig(
            tokenizer=find("tokenizers.vae_kl:stable_diffusion").objective,
            latent_scale=STABLE_DIFFUSION_SCALE,
            num_frames=16,
            size=size,
            transformer=VideoDiTArchitecture(variances=True, **network),
            diffusion=NOISE,
            sampling=GuidedSampling(steps=250),
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.0, schedule=Constant()),
        train=Loop(length=Steps(400_000), precision="bfloat16", ema=0.9999),
    )


def large_256() -> Run:
    """VDT-L/2: 28 blocks of width 1,152, at 256 x 256 pixels, as released for Sky Time-lapse."""
    return _at(256)


def small_256() -> Run:
    """VDT-S/2: 12 blocks of width 384."""
    return _at(256, width=384, depth=12, num_heads=6, mlp_width=1536)


def _published(clip: Clip, *, max_length: int, batch_size: int, **objective: Any) -> Run:
    """A published text-to-video network on captioned films; half of the clips have their first frame given."""
    return Run(
        data=Data(
            reads=Captioned(max_length=max_length), clip=clip, augment=Augment(mirror=0.0), batch_size=batch_size
        ),
        objective=VDTConfig(
            num_frames=clip.num_frames,
            size=clip.size,
            dropout=DROPOUT,
            tasks=(("generate", 1.0), ("predict", 1.0)),
            given_frames=1,
            **objective,
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.0, schedule=Constant(warmup=0.05)),
        train=Loop(length=Steps(2000), precision="bfloat16", checkpoint=True),
    )


def latte() -> Run:
    """Latte's text-to-video network, 16 frames of 512 x 512 pixels, to be begun with its published weights (--init).

    Half of the clips have their first frame given, so that films can be continued from a text and a picture. Sampling
    is the published pipeline's: 50 steps, guidance by 7.5. Rate, batch and steps are ours, for a few hundred films.
    """
    return _published(
        Clip(num_frames=16, stride=3, size=512, short_side=(512, 512)),
        max_length=120,
        batch_size=8,
        tokenizer=find("tokenizers.vae_kl:stable_diffusion").objective,
        latent_scale=STABLE_DIFFUSION_SCALE,
        text=T5Architecture(),
        transformer=VideoDiTArchitecture(
            depth=56,
            attention="alternating",
            modulation="shared",
            context_width=4096,
            variances=True,
        ),
        diffusion=NOISE,
        sampling=GuidedSampling(steps=50, guidance=7.5),
    )


def wan() -> Run:
    """Wan 2.1's text-to-video network of 1.3 billion weights, 33 frames of 480 x 480 pixels, to be begun with its
    published weights (--init).

    Half of the clips have their first frame given, so that films can be continued from a text and a picture. Solver,
    guidance and steps of sampling are the published pipeline's, whose clips are of 81 frames of 832 x 480 pixels:
    positions turn with the place, so that others have none to lack. Rate, batch and steps are ours, for a few
    hundred films.
    """
    return _published(
        Clip(num_frames=33, stride=2, size=480, short_side=(480, 480)),
        max_length=512,
        batch_size=4,
        tokenizer=VideoAutoencoderConfig(),
        latent_scale=1.0,
        text=T5Architecture(vocab_size=256384, own_positions=True),
        transformer=VideoDiTArchitecture(
            width=1536,
            depth=30,
            num_heads=12,
            mlp_width=8960,
            attention="joint",
            positions="rotary",
            modulation="shared",
            context_width=4096,
            context_norm=True,
            qk_norm=True,
        ),
        diffusion=DiffusionConfig(prediction="velocity", shift=3.0),
        sampling=GuidedSampling(steps=50, guidance=5.0, solver="uni_pc"),
    )


def ltx() -> Run:
    """LTX-Video's text-to-video network of 1.9 billion weights, 49 frames of 512 x 512 pixels, to be begun with its
    published weights (--init).

    Half of the clips have their first frame given. Guidance and steps of sampling are the published pipeline's, whose
    clips are of 161 frames of 704 x 512 pixels at 25 frames per second: positions are told in seconds, as if films
    were shown so. Rate, batch and steps are ours, for a few hundred films.
    """
    return _published(
        Clip(num_frames=49, stride=1, size=512, short_side=(512, 512)),
        max_length=128,
        batch_size=4,
        tokenizer=VideoAutoencoderConfig(kind="AutoencoderKLLTXVideo"),
        latent_scale=1.0,
        text_sees_padding=True,
        text=T5Architecture(),
        transformer=VideoDiTArchitecture(
            width=2048,
            depth=28,
            num_heads=32,
            mlp_width=8192,
            patch_size=(1, 1, 1),
            attention="joint",
            positions="metric",
            modulation="shared",
            context_width=4096,
            context_mask=True,
            rms_norm=True,
            qk_norm=True,
            qk_norm_eps=1e-5,
        ),
        diffusion=DiffusionConfig(prediction="velocity", size_shift=((1024, 0.95), (4096, 2.05)), last_level=0.1),
        sampling=GuidedSampling(steps=50, guidance=3.0),
    )
