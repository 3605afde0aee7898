"""Presets of InternVideo2.5."""

from __future__ import annotations

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.runs.config import Run
from filmstrip.systems.language.internvideo2_5.dropping import Dropping
from filmstrip.systems.language.internvideo2_5.model import CompressionConfig, InternVideo25Config
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames = 32, 4
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=64),
            batch_size=16,
        ),
        objective=InternVideo25Config(
            encoder=ImageTowerConfig(
                width=64,
                depth=2,
                num_heads=4,
                num_frames=frames,
                size=size,
                patch_size=8,
                pool="none",
                linear_init="glorot",
            ),
            connector=CompressionConfig(steps=2, per_step=4, num_heads=4),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=3, num_heads=4, mlp_dim=128),
            dropping=Dropping(after=(1, 2), keep=(0.5, 0.25)),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def chat_8b() -> Run:
    """InternViT's 300M size over 64 frames of 448 pixels, and InternLM2.5-7B; all parts are trained, the encoder at a
    fifth of the rate."""
    frames = 64
    return Run(
        data=Data(
            clip=Clip(num_frames=frames, sampling="uniform", size=448, short_side=(448, 448)),
            augment=Augment(mirror=0.0),
            reads=Conversations(format="hub", max_length=4096),
            batch_size=256,
            num_workers=8,
        ),
        objective=InternVideo25Config(
            encoder=ImageTowerConfig(
                width=1024,
                depth=24,
                num_heads=16,
                num_frames=frames,
                size=448,
                patch_size=14,
                pool="class",
                final_norm=False,
            ),
            decoder=DecoderConfig(
                vocab_size=92_553,
                width=4096,
                depth=32,
                num_heads=32,
                num_kv_heads=8,
                mlp_dim=14_336,
                norm_eps=1e-5,
                rope_base=1_000_000.0,
            ),
        ),
        optim=AdamW(lr=1e-5, weight_decay=0.0, schedule=Cosine(warmup=0.03), rates=(("encoder", 0.2),)),
        train=Loop(length=Epochs(1), precision="bfloat16", checkpoint=True),
    )
