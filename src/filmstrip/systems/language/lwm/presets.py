"""LWM's presets."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.vision_text import VisionText
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.models.decoder import DecoderConfig
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.systems.language.lwm.model import LWMConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

TOKENS = 2**23
"""Number of tokens in a step of every stage."""
FRAME = 257
"""Number of tokens of a frame, with its end."""
BESIDE = 512
"""Number of tokens that the longest videos leave for text."""
_TEXT, _BASE = 16.0, 5e7


def tiny() -> Run:
    """Shapes that move, with captions before or after them, from scratch; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=64, num_test=8, num_frames=4, size=32),
            reads=VisionText(format="bare", max_length=192, pack=384),
            clip=Clip(num_frames=2, sampling="uniform", size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=4,
        ),
        objective=LWMConfig(
            tokenizer=find("tokenizers.vqgan:tiny").objective,
            untrained_tokenizer=True,
            num_frames=2,
            size=32,
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
        ),
        optim=AdamW(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1),
        train=Loop(length=Steps(100)),
    )


def tiny_chat() -> Run:
    """Questions about the same shapes."""
    run = tiny()
    reads = VisionText(max_length=256, pack=512, conversations=True)
    return replace(run, data=replace(run.data, reads=reads))


def _stage(
    length: int, *, frames: int, weights: tuple[float, ...], steps: int, warmup: int, lr: float, min_lr: float
) -> Run:
    chat = lr == min_lr
    reads = VisionText(max_length=length, pack=length, format="lwm" if chat else "bare", requests=chat)
    objective = LWMConfig(
        tokenizer=find("tokenizers.vqgan:amused").objective,
        num_frames=frames,
        size=256,
        decoder=find("language.lwm_text:text_1m").objective.decoder,
        begins_at_base=_BASE,
        vision_vocab_size=8448,
    )
    return Run(
        data=Data(
            reads=reads,
            weights=weights,
            clip=Clip(
                num_frames=frames,
                sampling="uniform" if chat else "dense",
                stride=6,
                size=256,
                short_side=(256, 256),
            ),
            augment=Augment(mirror=0.0),
            batch_size=TOKENS // length,
        ),
        objective=objective,
        optim=AdamW(
            lr=lr, betas=(0.9, 0.95), weight_decay=0.1, schedule=Cosine(warmup=Steps(warmup), final=min_lr / lr)
        ),
        train=Loop(length=Steps(steps), checkpoint=True),
    )


def _chat(length: int, *, steps: int, warmup: int) -> Run:
    """A quarter each of requests for images, questions about images, requests for videos, questions about videos."""
    frames = (length - BESIDE) // FRAME
    return _stage(
        length, frames=frames, weights=(25.0, 25.0, 25.0, 25.0), steps=steps, warmup=warmup, lr=8e-5, min_lr=8e-5
    )


def vision_1k() -> Run:
    """From ``language.lwm_text:text_1m``: 45,000 steps on images with captions, and 16% of text."""
    weights = (100 - _TEXT, _TEXT)
    return _stage(2**10, frames=1, weights=weights, steps=45_000, warmup=1000, lr=6e-4, min_lr=6e-5)


def vision_8k() -> Run:
    """From ``vision_1k``: 14,000 steps on images and on videos of 30 frames, at 4 a second of 24, and 16% of text."""
    half = (100 - _TEXT) / 2
    return _stage(2**13, frames=30, weights=(half, half, _TEXT), steps=14_000, warmup=500, lr=6e-4, min_lr=6e-5)


def vision_chat_32k() -> Run:
    """From ``vision_8k``: 1,200 steps on requests for images and videos and questions about them, to 125 frames."""
    return _chat(2**15, steps=1200, warmup=100)


def vision_chat_128k() -> Run:
    """From ``vision_chat_32k``: 450 steps on the same, to 508 frames."""
    return _chat(2**17, steps=450, warmup=50)


def vision_chat_1m() -> Run:
    """From ``vision_chat_128k``: 50 steps on the same, to 4,078 frames."""
    return _chat(2**20, steps=50, warmup=5)
