"""The model and the presets of Video-LLaMA 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.language import Part, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.systems.language.video_llama2.connector import SpaceTimeConvConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

MISTRAL_7B = DecoderConfig(
    vocab_size=32_000,
    width=4096,
    depth=32,
    num_heads=32,
    num_kv_heads=8,
    mlp_dim=14_336,
    norm_eps=1e-5,
    rope_base=1e6,
)
"""Sizes of Mistral-7B-Instruct-v0.2, which has no window."""


@dataclass(frozen=True, kw_only=True)
class VideoLlama2Config(VideoLanguageConfig):
    """An image encoder, convolutions in space and time, and a language model."""

    connector: SpaceTimeConvConfig = field(default_factory=SpaceTimeConvConfig)
    """Connector of visual tokens to the language model."""


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
        objective=VideoLlama2Config(
            encoder=ImageTowerConfig(
                width=64,
                depth=2,
                num_heads=4,
                num_frames=frames,
                size=size,
                patch_size=8,
                pool="class",
                linear_init="glorot",
            ),
            connector=SpaceTimeConvConfig(depth=1),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def mistral_7b_stage1() -> Run:
    """The connector alone, on 12.2M captions of videos and images."""
    return _stage("caption", trains=("connector",), batch_size=256, lr=1e-3)


def mistral_7b_stage2() -> Run:
    """The connector and Mistral-7B, on 1.35M conversations: 7.7B weights are trained."""
    return _stage("v1", trains=("connector", "decoder"), batch_size=128, lr=2e-5)


def _stage(form: Literal["caption", "v1"], *, trains: tuple[Part, ...], batch_size: int, lr: float) -> Run:
    below = find("language.llava:v15_7b_stage1").objective
    assert isinstance(below, VideoLanguageConfig)
    return Run(
        data=Data(
            clip=Clip(num_frames=16, sampling="uniform", size=336, short_side=(336, 336)),
            augment=Augment(mirror=0.0),
            reads=Conversations(format=form, max_length=2048),
            batch_size=batch_size,
            num_workers=8,
        ),
        objective=VideoLlama2Config(encoder=below.encoder, layer=-2, decoder=MISTRAL_7B, trains=trains),
        optim=AdamW(lr=lr, betas=(0.9, 0.999), weight_decay=0.0, schedule=Cosine(warmup=0.03)),
        train=Loop(length=Epochs(1), precision="bfloat16", checkpoint=True),
    )
