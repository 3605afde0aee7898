"""Presets of BLIP."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.runs.config import Run
from filmstrip.systems.language.blip.model import BlipConfig
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

VIT_B = ImageTowerArchitecture(
    width=768,
    depth=12,
    num_heads=12,
    num_frames=1,
    size=224,
    patch_size=16,
    pool="class",
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
"""ViT-B/16, which begins as DeiT."""
VIT_L = replace(VIT_B, width=1024, depth=24, num_heads=16, drop_path=0.1)
"""ViT-L/16, which begins as one that was trained on ImageNet-21k."""
BERT = TextArchitecture(
    width=768, depth=12, num_heads=12, norm="post", norm_eps=1e-12, dropout=0.1, vocab_size=30_524, max_length=512
)
"""BERT's base size, with cross-attention in every layer and two tokens more."""
_EPOCH = 14_000_000 // 2880
"""Steps of an epoch over the paper's 14 million images."""


def tiny() -> Run:
    """Moving shapes with captions, four frames of 48 x 48 pixels."""
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=400, num_test=60, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=BlipConfig(
            vision=ImageTowerArchitecture(
                width=64,
                depth=3,
                num_heads=4,
                num_frames=4,
                size=48,
                patch_size=12,
                pool="class",
                linear_init="glorot",
            ),
            text=TextArchitecture(
                width=64,
                depth=2,
                num_heads=4,
                mlp_ratio=2.0,
                norm="post",
                vocab_size=130,
                max_length=16,
                linear_init="glorot",
            ),
            embed_dim=32,
            queue_size=64,
            momentum=0.9,
            soften_over=20,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.05, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(200)),
        evals=(Retrieval(),),
    )


def vit_b() -> Run:
    """Pretraining with ViT-B/16 at 224 pixels, for 14 million images."""
    return _pretraining(VIT_B, batch_size=2880, lr=3e-4)


def vit_l() -> Run:
    """Pretraining with ViT-L/16 at 224 pixels."""
    return _pretraining(VIT_L, batch_size=2400, lr=2e-4)


def _pretraining(vision: ImageTowerArchitecture, *, batch_size: int, lr: float) -> Run:
    return Run(
        data=Data(
            reads=Captioned(max_length=30),
            clip=Clip(num_frames=1, size=224, crop="random_resized", area=(0.2, 1.0)),
            batch_size=batch_size,
            num_workers=8,
        ),
        objective=BlipConfig(vision=vision, text=BERT, soften_over=2 * _EPOCH),
        optim=AdamW(lr=lr, weight_decay=0.05, schedule=Cosine(warmup=Steps(3000), start=1e-6 / lr, final=1e-6 / lr)),
        train=Loop(length=Epochs(20), precision="bfloat16", checkpoint=True),
        evals=(Retrieval(),),
    )


def captioner_vit_b() -> Run:
    """Fine-tuning to write captions at 384 pixels, from a pretrained run (``--init``): CapFilt's captioner."""
    return _tuned(BlipConfig(vision=replace(VIT_B, size=384), text=BERT, losses=("captioning",), momentum=None), 5)


def filter_vit_b() -> Run:
    """Fine-tuning to match and contrast at 384 pixels, from a pretrained run (``--init``): CapFilt's filter."""
    return _tuned(BlipConfig(vision=replace(VIT_B, size=384), text=BERT, losses=("contrast", "matching")), 6)


def _tuned(objective: BlipConfig, epochs: int) -> Run:
    return Run(
        data=Data(
            reads=Captioned(max_length=30),
            clip=Clip(num_frames=1, size=384, crop="random_resized", area=(0.5, 1.0)),
            batch_size=256,
            num_workers=8,
        ),
        objective=objective,
        optim=AdamW(lr=1e-5, weight_decay=0.05, schedule=Cosine(warmup=0.0)),
        train=Loop(length=Epochs(epochs), precision="bfloat16", checkpoint=True),
    )
