"""ElasticTok's stages of training."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.elastic import TokensAgainstError
from filmstrip.objectives.codebook import Codebook
from filmstrip.runs.config import Run
from filmstrip.systems.tokenizers.elastictok.model import ElasticTokConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant


def tiny() -> Run:
    """Two blocks of two frames of motions at 32 x 32 pixels, discrete; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=4, stride=4, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=ElasticTokConfig(
            width=64,
            depth=2,
            num_heads=2,
            block_frames=2,
            size=32,
            patch_size=(1, 8, 8),
            min_tokens=4,
            codebook=Codebook(kind="fsq"),
            perceptual_weight=0.0,
        ),
        optim=AdamW(lr=2e-3, weight_decay=1e-4),
        train=Loop(length=Steps(100)),
        evals=(TokensAgainstError(targets=(0.02,)),),
    )


def _stage(
    network: ElasticTokConfig, *, blocks: int, steps: int, warmup: int, batch_size: int = 256, stills: float = 0.25
) -> Run:
    """A stage of the training (appendix C.2), of video at 24 frames a second."""
    return Run(
        data=Data(
            clip=Clip(num_frames=blocks * network.block_frames, stride=1, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.0),
            batch_size=batch_size,
        ),
        objective=replace(network, still_share=stills),
        optim=AdamW(lr=2e-4, weight_decay=1e-4, schedule=Constant(warmup=Steps(warmup))),
        train=Loop(length=Steps(steps), checkpoint=blocks > 1),
        evals=(TokensAgainstError(),),
    )


_CONTINUOUS = ElasticTokConfig(
    width=1024,
    depth=10,
    num_heads=8,
    mlp_ratio=2.0,
    block_frames=4,
    size=256,
    patch_size=(2, 8, 8),
    min_tokens=128,
    rope_base=5e6,
    latent_dim=8,
    kl_weight=1e-8,
    perceptual_weight=0.1,
)
_DISCRETE = replace(
    _CONTINUOUS,
    patch_size=(1, 8, 8),
    min_tokens=256,
    rope_base=5e7,
    codebook=Codebook(kind="fsq", levels=(8, 8, 8, 5, 5, 5)),
)


def continuous_image() -> Run:
    """The continuous model on stills alone, a picture four times in a block."""
    return _stage(_CONTINUOUS, blocks=1, steps=200_000, warmup=10_000, stills=1.0)


def continuous() -> Run:
    """2048 continuous tokens for 4 frames of 256 x 256; single blocks, half of them stills."""
    return _stage(_CONTINUOUS, blocks=1, steps=200_000, warmup=10_000, stills=0.5)


def continuous_2() -> Run:
    """The continuous model on 8 frames, 2 blocks, half of the clips stills."""
    return _stage(_CONTINUOUS, blocks=2, steps=80_000, warmup=5000, stills=0.5)


def continuous_4() -> Run:
    """The continuous model on 16 frames, 4 blocks, a quarter of the clips stills."""
    return _stage(_CONTINUOUS, blocks=4, steps=50_000, warmup=2000)


def continuous_16() -> Run:
    """The continuous model on 64 frames, 16 blocks."""
    return _stage(_CONTINUOUS, blocks=16, steps=10_000, warmup=1000, batch_size=64)


def continuous_64() -> Run:
    """The continuous model on 256 frames, 64 blocks."""
    return _stage(_CONTINUOUS, blocks=64, steps=1000, warmup=200, batch_size=16)


def continuous_128() -> Run:
    """The continuous model on 512 frames, 128 blocks."""
    return _stage(_CONTINUOUS, blocks=128, steps=500, warmup=100, batch_size=8)


def continuous_256() -> Run:
    """The continuous model on 1024 frames, 256 blocks."""
    return _stage(_CONTINUOUS, blocks=256, steps=200, warmup=25, batch_size=4)


def discrete_image() -> Run:
    """The discrete model on stills alone, a picture four times in a block."""
    return _stage(_DISCRETE, blocks=1, steps=200_000, warmup=10_000, stills=1.0)


def discrete() -> Run:
    """4096 tokens of 64,000 codes for 4 frames of 256 x 256; single blocks, half of them stills."""
    return _stage(_DISCRETE, blocks=1, steps=200_000, warmup=10_000, stills=0.5)


def discrete_2() -> Run:
    """The discrete model on 8 frames, 2 blocks, half of the clips stills."""
    return _stage(_DISCRETE, blocks=2, steps=80_000, warmup=5000, stills=0.5)


def discrete_4() -> Run:
    """The discrete model on 16 frames, 4 blocks, a quarter of the clips stills."""
    return _stage(_DISCRETE, blocks=4, steps=50_000, warmup=2000)


def discrete_16() -> Run:
    """The discrete model on 64 frames, 16 blocks."""
    return _stage(_DISCRETE, blocks=16, steps=10_000, warmup=1000, batch_size=64)


def discrete_64() -> Run:
    """The discrete model on 256 frames, 64 blocks."""
    return _stage(_DISCRETE, blocks=64, steps=1000, warmup=200, batch_size=16)


def discrete_128() -> Run:
    """The discrete model on 512 frames, 128 blocks."""
    return _stage(_DISCRETE, blocks=128, steps=500, warmup=100, batch_size=8)


def discrete_256() -> Run:
    """The discrete model on 1024 frames, 256 blocks."""
    return _stage(_DISCRETE, blocks=256, steps=200, warmup=25, batch_size=4)
