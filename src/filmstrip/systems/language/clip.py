"""CLIP: an image tower and a text tower; a softmax over the batch chooses each image's text and each text's image.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.

    filmstrip train language.clip:b32_224 --data PATH --data.reads.tokenizer FOLDER

The towers are in :mod:`filmstrip.models`, the loss is in :mod:`filmstrip.objectives.contrastive`. An image is read by
its class token, a text, from left to right, at its end; both are projected without a bias. The scale begins at
1 / 0.07 and stays below 100. Where we deviate: a clip is read as the mean of its frames' vectors, and equal captions
of a batch are no negatives. A folder in the Hub's layout starts a run (``--init FOLDER``).

The paper reports, on ImageNet without examples, 63.2% for B/32, 68.3% for B/16, 75.3% for L/14 and 76.2% for L/14 at
336 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.dual_encoder import CLIP_PIXELS, layouts_of
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.objectives.contrastive import Contrastive, ContrastiveConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class CLIPConfig(ContrastiveConfig):
    """Two towers, each with a projection to vectors of ``embed_dim``."""

    embed_dim: Count
    """Channels of the vectors that are compared."""

    def build(self) -> Contrastive:
        """Build the network with fresh weights."""
        layouts = layouts_of("clip", self.vision.tubelet)
        return Contrastive(self, pool="end", causal_text=True, embed_dim=self.embed_dim, layouts=layouts)


def tiny() -> Run:
    """Moving shapes with captions, four frames of 48 x 48 pixels; two CPU cores train it in a minute."""
    shape = {"width": 96, "depth": 4, "num_heads": 4, "linear_init": "glorot"}
    frames = {"num_frames": 4, "size": 48, "patch_size": 8, "pool": "class", "norm_before": True}
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=800, num_test=100, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=CLIPConfig(
            vision=ImageTowerArchitecture(**shape, **frames, patch_bias=False, **CLIP_PIXELS),
            text=TextArchitecture(**{**shape, "depth": 2}, vocab_size=128, max_length=16),
            embed_dim=64,
            loss="softmax",
            scale=1 / 0.07,
            max_scale=100.0,
        ),
        optim=AdamW(lr=1e-3, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(400)),
        evals=(Retrieval(),),
    )


def b32_224() -> Run:
    """ViT-B/32 at 224 pixels."""
    return _released(width=768, depth=12, num_heads=12, size=224, patch_size=32, text_width=512, lr=5e-4)


def b16_224() -> Run:
    """ViT-B/16 at 224 pixels."""
    return _released(width=768, depth=12, num_heads=12, size=224, patch_size=16, text_width=512, lr=5e-4)


def l14_224() -> Run:
    """ViT-L/14 at 224 pixels."""
    return _released(width=1024, depth=24, num_heads=16, size=224, patch_size=14, text_width=768, lr=4e-4)


def _released(
    *, width: int, depth: int, num_heads: int, size: int, patch_size: int, text_width: int, lr: float
) -> Run:
    shape = {"num_heads": num_heads, "gelu": "quick", "norm_eps": 1e-5}
    frames = {"num_frames": 1, "size": size, "patch_size": patch_size, "pool": "class", "norm_before": True}
    text = {**shape, "num_heads": text_width // 64, "width": text_width, "depth": 12}
    clip = Clip(num_frames=1, size=size, crop="random_resized", area=(0.9, 1.0))
    return Run(
        data=Data(reads=Captioned(max_length=77), clip=clip, batch_size=32_768, num_workers=8),
        objective=CLIPConfig(
            vision=ImageTowerArchitecture(
                **shape, **frames, width=width, depth=depth, patch_bias=False, **CLIP_PIXELS
            ),
            text=TextArchitecture(**text, vocab_size=49_408, max_length=77),
            embed_dim=text_width,
            loss="softmax",
            scale=1 / 0.07,
            max_scale=100.0,
        ),
        optim=AdamW(lr=lr, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6, schedule=Cosine(warmup=Steps(2_000))),
        train=Loop(length=Epochs(32), precision="float16", checkpoint=True),
        evals=(Retrieval(),),
    )
