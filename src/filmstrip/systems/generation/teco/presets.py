"""TECO's presets."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.systems.generation.teco.model import TECOConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


def tiny() -> Run:
    """Motions at 32 x 32 pixels, without a tokenizer; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=8, stride=2, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=TECOConfig(
            num_frames=8,
            size=32,
            encoder_widths=(16, 24, 32),
            encoder_blocks=1,
            decoder_widths=(16, 24, 32),
            decoder_blocks=1,
            codebook_size=64,
            code_dim=16,
            latent_dim=32,
            stride=4,
            width=64,
            depth=2,
            num_heads=4,
            prior_width=64,
            prior_depth=2,
            prior_num_heads=4,
            prior_code_width=32,
            drop_loss=0.5,
            label_smoothing=0.01,
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.0),
        train=Loop(length=Steps(100)),
    )


_DMLAB = {
    "encoder_widths": (256, 512),
    "encoder_blocks": 2,
    "decoder_widths": (256, 512),
    "decoder_blocks": 4,
    "codebook_size": 1024,
    "code_dim": 32,
    "latent_dim": 32,
    "stride": 8,
    "width": 1024,
    "depth": 8,
    "num_heads": 16,
    "prior_width": 512,
    "prior_depth": 8,
    "prior_num_heads": 8,
    "prior_code_width": 256,
    "drop_loss": 0.9,
    "label_smoothing": 0.01,
    "action_width": 16,
}
"""Settings of the DMLab network, from which the other networks differ."""


def _paper(tokenizer: str, *, num_frames: int, size: int, actions: float | None, **network: object) -> Run:
    """A million steps of batches of 32, 1e-4; ``actions`` is the share of clips without, none for no actions."""
    config = TECOConfig(
        tokenizer=find(f"tokenizers.vqgan:{tokenizer}").objective,
        num_frames=num_frames,
        size=size,
        conditions=() if actions is None else ("action",),
        num_actions=0 if actions is None else 3,
        condition_drop=actions or 0.0,
        **(_DMLAB | network),
    )
    return Run(
        data=Data(
            clip=Clip(num_frames=num_frames, stride=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=config,
        optim=AdamW(lr=1e-4, weight_decay=1e-5, betas=(0.9, 0.95), schedule=Cosine(warmup=0.01)),
        train=Loop(length=Steps(1_000_000), precision="bfloat16", clip_grad=None),
    )


def _shorter(run: Run, num_frames: int, **network: object) -> Run:
    """The same on fewer frames, with more of a network for each."""
    clip = replace(run.data.clip, num_frames=num_frames)
    objective = replace(run.objective, num_frames=num_frames, **network)
    return replace(run, data=replace(run.data, clip=clip), objective=objective)


def dmlab() -> Run:
    """DMLab-40k, 300 frames of 64 x 64, with and without actions: 169 M parameters."""
    return _paper("dmlab", num_frames=300, size=64, actions=0.5)


def dmlab_200() -> Run:
    """DMLab-40k, 200 frames: 169 M parameters."""
    return _shorter(dmlab(), 200, drop_loss=0.85)


def dmlab_100() -> Run:
    """DMLab-40k, 100 frames of 4 x 4 tokens: 86 M parameters."""
    return _shorter(dmlab(), 100, drop_loss=0.85, stride=2, width=512, num_heads=8)


def dmlab_50() -> Run:
    """DMLab-40k, 50 frames of 4 x 4 tokens: 195 M parameters."""
    return _shorter(dmlab(), 50, drop_loss=0.85, stride=2, prior_width=768, prior_num_heads=12)


def minecraft() -> Run:
    """Minecraft-200k, 300 frames of 128 x 128, with actions: 274 M parameters."""
    return _paper(
        "minecraft",
        num_frames=300,
        size=128,
        actions=0.0,
        encoder_blocks=4,
        decoder_blocks=8,
        latent_dim=64,
        depth=12,
        prior_width=768,
        prior_depth=6,
        prior_num_heads=12,
    )


def minecraft_200() -> Run:
    """Minecraft-200k, 200 frames of 2 x 2 tokens: 266 M parameters."""
    return _shorter(minecraft(), 200, drop_loss=0.85, stride=4)


def minecraft_100() -> Run:
    """Minecraft-200k, 100 frames of 4 x 4 tokens: 264 M parameters."""
    return _shorter(minecraft(), 100, drop_loss=0.25, stride=2)


def minecraft_50() -> Run:
    """Minecraft-200k, 50 frames of 4 x 4 tokens: 164 M parameters."""
    return _shorter(minecraft(), 50, drop_loss=0.25, stride=2, width=512, num_heads=8, prior_depth=8)


def habitat() -> Run:
    """Habitat, 300 frames of 128 x 128, with and without actions: 386 M parameters."""
    return _paper(
        "habitat",
        num_frames=300,
        size=128,
        actions=0.5,
        encoder_blocks=4,
        decoder_blocks=8,
        latent_dim=256,
        stride=4,
        prior_width=1024,
        prior_depth=16,
        prior_num_heads=16,
    )


def kinetics600() -> Run:
    """Kinetics-600, 100 frames of 128 x 128, no actions: 1.09 G parameters."""
    return _paper(
        "kinetics600",
        num_frames=100,
        size=128,
        actions=None,
        encoder_blocks=8,
        decoder_blocks=10,
        latent_dim=256,
        stride=2,
        width=1536,
        depth=24,
        num_heads=24,
        prior_width=1024,
        prior_depth=24,
        prior_num_heads=16,
    )
