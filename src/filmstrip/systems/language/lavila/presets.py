"""LaViLa's settings, by the paper and the public code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.dual_encoder import CLIP_PIXELS
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.models.video_transformer import TransformerArchitecture
from filmstrip.runs.config import Run
from filmstrip.systems.language.lavila.dual import LavilaConfig
from filmstrip.systems.language.lavila.narrator import NarratorConfig, PoolingConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine

GPT2 = DecoderConfig(
    vocab_size=50_257,
    width=768,
    depth=12,
    num_heads=12,
    mlp_dim=3072,
    block="gpt2",
    positions="learned",
    max_length=1024,
    norm_eps=1e-5,
    tied=True,
)
GPT2_XL = replace(GPT2, width=1600, depth=48, num_heads=25, mlp_dim=6400)


def tiny() -> Run:
    """The two towers on moving shapes with captions, four frames of 48 x 48 pixels."""
    shape: dict[str, Any] = {"width": 64, "num_heads": 4, "gelu": "quick", "linear_init": "glorot"}
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=800, num_test=100, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=LavilaConfig(
            vision=TransformerArchitecture(**shape, **CLIP_PIXELS, depth=3, num_frames=4, size=48, patch_size=12),
            text=TextArchitecture(**shape, depth=2, vocab_size=128, max_length=16),
            embed_dim=32,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.01, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(400)),
        evals=(Retrieval(),),
    )


def tiny_narrator() -> Run:
    """A narrator of the same shapes, all parts from scratch."""
    towers = tiny()
    assert isinstance(towers.objective, LavilaConfig)
    return replace(
        towers,
        objective=NarratorConfig(
            encoder=towers.objective,
            connector=PoolingConfig(num_queries=8, num_heads=4, head_dim=16),
            decoder=replace(GPT2, vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128, max_length=16),
            trains=("encoder", "connector", "decoder"),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.01, schedule=Cosine(warmup=0.1)),
        evals=(),
    )


def base() -> Run:
    """TimeSformer-B/16 and CLIP's text tower: 4M clips of Ego4D of about a second, 4 frames."""
    return _towers(_vision(width=768, depth=12, num_heads=12, size=224, patch_size=16), text_width=512)


def large() -> Run:
    """TimeSformer-L/14 and CLIP's text tower."""
    return _towers(_vision(width=1024, depth=24, num_heads=16, size=224, patch_size=14), text_width=768)


def large_336() -> Run:
    """TimeSformer-L/14 at 336 pixels."""
    return _towers(_vision(width=1024, depth=24, num_heads=16, size=336, patch_size=14), text_width=768)


def narrator_base_gpt2() -> Run:
    """GPT-2 (124M), which sees through TimeSformer-B/16, with a layer before each of its 12 blocks."""
    return _narrator(base(), GPT2, gated_every=1)


def narrator_large_gpt2_xl() -> Run:
    """GPT-2 XL (1.6B), which sees through TimeSformer-L/14, with a layer before every second of its 48 blocks."""
    return _narrator(large(), GPT2_XL, gated_every=2)


def narrator_large_gpt2_xl_336() -> Run:
    """GPT-2 XL, which sees through TimeSformer-L/14 at 336 pixels, with a layer before every third block."""
    return _narrator(large_336(), GPT2_XL, gated_every=3)


def _vision(**sizes: Any) -> TransformerArchitecture:
    return TransformerArchitecture(**sizes, **CLIP_PIXELS, num_frames=4, gelu="quick")


def _towers(vision: TransformerArchitecture, *, text_width: int) -> Run:
    clip = Clip(num_frames=4, sampling="uniform", size=vision.size, crop="random_resized", area=(0.5, 1.0))
    text = TextArchitecture(
        width=text_width,
        depth=12,
        num_heads=text_width // 64,
        vocab_size=49_408,
        max_length=77,
        norm_eps=1e-5,
        gelu="quick",
    )
    return Run(
        data=Data(reads=Captioned(max_length=77), clip=clip, batch_size=1024, num_workers=10),
        objective=LavilaConfig(vision=vision, text=text),
        optim=AdamW(lr=3e-5, weight_decay=0.01, schedule=Constant(warmup=0.0)),
        train=Loop(length=Epochs(5), precision="float16", checkpoint=True, clip_grad=None),
        evals=(Retrieval(),),
    )


def _narrator(towers: Run, decoder: DecoderConfig, *, gated_every: int) -> Run:
    """In float32, in which alone the authors found it stable."""
    return replace(
        towers,
        data=replace(towers.data, batch_size=256),
        objective=NarratorConfig(
            encoder=towers.objective,
            connector=PoolingConfig(num_heads=decoder.num_heads),
            decoder=decoder,
            gated_every=gated_every,
        ),
        train=Loop(length=Epochs(5), checkpoint=True, clip_grad=1.0),
        evals=(),
    )
