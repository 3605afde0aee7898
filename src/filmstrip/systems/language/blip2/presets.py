"""Presets of BLIP-2."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.query_connector import QueryConnectorConfig
from filmstrip.models.query_transformer import QueryTransformerConfig
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.runs.config import Run
from filmstrip.systems.language.blip2.alignment import Blip2Config
from filmstrip.systems.language.blip2.generation import Blip2LanguageConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

BERT = QueryTransformerConfig(
    num_queries=32,
    width=768,
    depth=12,
    num_heads=12,
    mlp_dim=3072,
    cross_every=2,
    vocab_size=30_523,
    dropout=0.1,
)
"""Queries and text in BERT's base size; BERT's vocabulary has one token more for the start of captions."""
EVA_G = ImageTowerArchitecture(
    width=1408,
    depth=39,
    num_heads=16,
    mlp_ratio=6144 / 1408,
    num_frames=1,
    size=224,
    patch_size=14,
    pool="class",
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
"""EVA-CLIP's ViT-g/14 without its last block."""
CLIP_L = replace(EVA_G, width=1024, depth=23, mlp_ratio=4.0, norm_before=True, patch_bias=False, gelu="quick")
"""CLIP's ViT-L/14 without its last block."""


def tiny() -> Run:
    """The first stage on moving shapes with captions, with an encoder that is random without ``--init``."""
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=400, num_test=60, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=Blip2Config(
            vision=ImageTowerArchitecture(
                width=96,
                depth=4,
                num_heads=4,
                num_frames=4,
                size=48,
                patch_size=8,
                pool="class",
                linear_init="glorot",
            ),
            queries=QueryTransformerConfig(
                num_queries=8,
                width=64,
                depth=2,
                num_heads=4,
                mlp_dim=128,
                cross_every=2,
                vocab_size=129,
                max_length=16,
            ),
            embed_dim=32,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98), schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(200)),
        evals=(Retrieval(),),
    )


def tiny_stage2() -> Run:
    """The second stage on questions about the same shapes, all parts trained; ``--init`` takes a run of ``tiny``."""
    first = tiny()
    assert isinstance(first.objective, Blip2Config)
    queries = replace(first.objective.queries, vocab_size=None)
    return replace(
        first,
        data=replace(first.data, reads=Conversations(max_length=64)),
        objective=Blip2LanguageConfig(
            encoder=ImageTowerConfig(**vars(first.objective.vision)),
            connector=QueryConnectorConfig(queries=queries),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
            trains=("encoder", "connector", "decoder"),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
        evals=(),
    )


def stage1_vit_g() -> Run:
    """The first stage over EVA-CLIP's ViT-g/14 at 224 pixels: 188M weights are trained."""
    return _stage1(EVA_G, batch_size=1680)


def stage1_vit_l() -> Run:
    """The first stage over CLIP's ViT-L/14 at 224 pixels."""
    return _stage1(CLIP_L, batch_size=2320)


def _stage1(vision: ImageTowerArchitecture, *, batch_size: int) -> Run:
    return Run(
        data=Data(
            reads=Captioned(max_length=32),
            clip=Clip(num_frames=1, size=224, crop="random_resized"),
            batch_size=batch_size,
            num_workers=8,
        ),
        objective=Blip2Config(vision=vision, queries=BERT),
        optim=AdamW(
            lr=1e-4, weight_decay=0.05, betas=(0.9, 0.98), schedule=Cosine(warmup=Steps(5000), start=0.01, final=0.1)
        ),
        train=Loop(length=Steps(250_000), precision="bfloat16", checkpoint=True, clip_grad=None),
        evals=(Retrieval(),),
    )


def stage2_vit_g_vicuna_7b() -> Run:
    """The second stage over ViT-g/14 with Vicuna-7B, from captions: 108M weights are trained."""
    return Run(
        data=Data(
            clip=Clip(num_frames=1, size=224, crop="random_resized"),
            reads=Conversations(format="caption", max_length=64),
            batch_size=1520,
            num_workers=8,
        ),
        objective=Blip2LanguageConfig(
            encoder=ImageTowerConfig(**vars(EVA_G)),
            connector=QueryConnectorConfig(queries=replace(BERT, vocab_size=None)),
            decoder=DecoderConfig(
                vocab_size=32_000, width=4096, depth=32, num_heads=32, mlp_dim=11_008, norm_eps=1e-5
            ),
        ),
        optim=AdamW(
            lr=1e-4, weight_decay=0.05, betas=(0.9, 0.98), schedule=Cosine(warmup=Steps(2000), start=0.01, final=0.5)
        ),
        train=Loop(length=Steps(80_000), precision="bfloat16", checkpoint=True, clip_grad=None),
    )
