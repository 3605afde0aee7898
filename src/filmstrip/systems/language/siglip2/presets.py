"""Presets of SigLIP 2."""

from __future__ import annotations

import math
from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data, PatchNumber
from filmstrip.data.kinds.regions import Regions
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.dual_encoder import SIGLIP_PIXELS
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.runs.config import Run
from filmstrip.systems.language.siglip2.decoder import DecoderConfig
from filmstrip.systems.language.siglip2.distillation import DistillationConfig
from filmstrip.systems.language.siglip2.model import SigLIP2Config
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

BATCH, VOCABULARY = 32_768, 256_000
STEPS = 40_000_000_000 // BATCH
"""Steps of 40 billion examples."""
TAIL = STEPS * 4 // 5
"""Steps before self-distillation begins."""
CURATED = 4_000_000_000 // BATCH
"""Steps of 4 billion examples, half of which a curator chooses."""
LENGTHS = (128, 256, 576, 784, 1024)
"""Numbers of patches of which each batch of frames of any shape draws one."""
_B = {"width": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072}
_L = {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096}
_SO400M = {"width": 1152, "depth": 27, "num_heads": 16, "mlp_dim": 4304}
_G = {"width": 1536, "depth": 40, "num_heads": 16, "mlp_dim": 6144}


def tiny() -> Run:
    """Moving shapes with captions and boxes, four frames of 48 x 48 pixels: the sigmoid loss and the decoder."""
    shape = {"width": 96, "depth": 4, "num_heads": 4, "gelu": "tanh", "linear_init": "glorot"}
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=800, num_test=100, num_frames=4, size=48, labels="form"),
            reads=Regions(max_length=16, start=False, max_regions=1, phrase_length=6),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=SigLIP2Config(
            vision=ImageTowerArchitecture(**shape, num_frames=4, size=48, patch_size=8, **SIGLIP_PIXELS),
            text=TextArchitecture(**{**shape, "depth": 2}, vocab_size=128, max_length=16),
            decoder=DecoderConfig(depth=2, bins=48, max_phrase=8),
            bias=-3.0,
        ),
        optim=AdamW(lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.95), schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(400)),
        evals=(Retrieval(),),
    )


def tiny_tail() -> Run:
    """The same with self-distillation from the first step on, as the last fifth of training has it."""
    run = tiny()
    assert isinstance(run.objective, SigLIP2Config)
    tail = DistillationConfig(after=0, crops=2, crop_size=24, hidden=96, dim=32)
    return replace(run, objective=replace(run.objective, distillation=tail), evals=())


def b16_224() -> Run:
    """ViT-B/16 at 224 pixels."""
    return _released(_B, 224, 16, weight=0.25)


def b16_256() -> Run:
    """ViT-B/16 at 256 pixels."""
    return _released(_B, 256, 16, weight=0.25)


def b32_256() -> Run:
    """ViT-B/32 at 256 pixels."""
    return _released(_B, 256, 32, weight=0.25)


def l16_256() -> Run:
    """ViT-L/16 at 256 pixels."""
    return _released(_L, 256, 16, weight=0.5)


def so400m_14_224() -> Run:
    """The shape-optimised network of 400 million weights, patches of 14, at 224 pixels."""
    return _released(_SO400M, 224, 14, weight=1.0)


def so400m_16_256() -> Run:
    """The same with patches of 16, at 256 pixels."""
    return _released(_SO400M, 256, 16, weight=1.0)


def g16_256() -> Run:
    """ViT-g/16 at 256 pixels, with the text tower of So400m."""
    return _released(_G, 256, 16, weight=0.5, text=_SO400M)


def b16_512() -> Run:
    """ViT-B/16 at 512 pixels, at the end of training: start it from a run of ``b16_256`` (``--init RUN``)."""
    return _resized(b16_256(), 512)


def b16_naflex() -> Run:
    """ViT-B/16 for frames of any shape, at the end of training: start it from a run of ``b16_256``."""
    return _naflex(b16_256())


def so400m_16_naflex() -> Run:
    """So400m/16 for frames of any shape, at the end of training: start it from a run of ``so400m_16_256``."""
    return _naflex(so400m_16_256())


def b32_256_curated() -> Run:
    """ViT-B/32 fine-tuned on the half of each batch that a larger one chooses: ``--objective.curator-run RUN``."""
    return _curated(b32_256())


def b16_256_curated() -> Run:
    """ViT-B/16, likewise."""
    return _curated(b16_256())


def _released(
    sizes: dict[str, int], size: int, patch_size: int, *, weight: float, text: dict[str, int] | None = None
) -> Run:
    """Training from the start."""
    local = round(0.4 * size / patch_size) * patch_size
    tower = _shape(sizes)
    return Run(
        data=Data(
            reads=Regions(max_length=64, start=False, phrase_length=32),
            clip=Clip(num_frames=1, size=size, crop="random_resized"),
            batch_size=BATCH,
            num_workers=8,
        ),
        objective=SigLIP2Config(
            vision=ImageTowerArchitecture(**tower, num_frames=1, size=size, patch_size=patch_size, **SIGLIP_PIXELS),
            text=TextArchitecture(**_shape(text or sizes), vocab_size=VOCABULARY, max_length=64),
            distillation=DistillationConfig(after=TAIL, weight=weight, crop_size=local, hidden=2048),
        ),
        optim=AdamW(lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.95), schedule=Cosine(warmup=Steps(20_000))),
        train=Loop(length=Steps(STEPS), precision="bfloat16", checkpoint=True),
        evals=(Retrieval(),),
    )


def _shape(sizes: dict[str, int]) -> dict[str, object]:
    own = {key: value for key, value in sizes.items() if key != "mlp_dim"}
    return {**own, "mlp_ratio": sizes["mlp_dim"] / sizes["width"], "gelu": "tanh"}


def _ending(run: Run) -> Run:
    """The last twentieth of training, at the learning rate that its schedule has come to, without distillation."""
    assert isinstance(run.objective, SigLIP2Config)
    lr = run.optim.lr * (1 + math.cos(0.95 * math.pi)) / 2
    optim = replace(run.optim, lr=lr, schedule=Cosine())
    objective = replace(run.objective, distillation=None)
    return replace(run, objective=objective, optim=optim, train=replace(run.train, length=Steps(STEPS // 20)))


def _naflex(run: Run) -> Run:
    """The end of training on frames of their own shape."""
    run = _ending(run)
    assert isinstance(run.objective, SigLIP2Config)
    patch = run.objective.vision.tubelet[1]
    native = PatchNumber(patch=patch, max_patches=LENGTHS, eval_patches=256)
    return replace(run, data=replace(run.data, clip=replace(run.data.clip, native=native)))


def _resized(run: Run, size: int) -> Run:
    """The end of training at another size."""
    run = _ending(run)
    return run.on_clip(replace(run.data.clip, size=size))


def _curated(run: Run) -> Run:
    assert isinstance(run.objective, SigLIP2Config)
    alone = replace(run.objective, decoder=None, distillation=None)
    optim = replace(run.optim, lr=1e-5, weight_decay=0.0, schedule=Cosine())
    data = replace(run.data, batch_size=2 * BATCH)
    return replace(run, data=data, objective=alone, optim=optim, train=replace(run.train, length=Steps(CURATED)))
