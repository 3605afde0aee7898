"""SigLIP: an image tower and a text tower whose vectors match; each pair of a batch is a yes/no question of its own.

The loss needs no normalisation over the batch: it works in small batches, and many processes compute it tile by tile,
passing their texts round a ring. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.

    filmstrip train language.siglip:b16_256 --data PATH --data.reads.tokenizer FOLDER

The towers are in :mod:`filmstrip.models`, the loss is in :mod:`filmstrip.objectives.contrastive`. As in the released
models the text attends to its padding, is read at its last position, and a frame is read by a learned query.
Where we deviate: a clip is read as the mean of its frames' vectors, and equal captions of a batch are no negatives;
frames are cropped to a square, which the authors squeeze them into. The initial scale and bias (10 and -10) are those
of the public training script of OpenCLIP. A folder in the Hub's layout starts a run (``--init FOLDER``).

The paper reports, for B/16 at 256 pixels, 76.7% on ImageNet without examples and a recall at 1 from text to image of
47.4% on COCO (as quoted with SigLIP 2); the sigmoid loss gains most in small batches.
"""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.dual_encoder import SIGLIP_PIXELS, layouts_of
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.objectives.contrastive import Contrastive, ContrastiveConfig
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class SigLIPConfig(ContrastiveConfig):
    """Two towers of one width, without a projection of images."""

    def build(self) -> Contrastive:
        """Build the network with fresh weights."""
        layouts = layouts_of("siglip", self.vision.tubelet)
        return Contrastive(self, pool="last", causal_text=False, layouts=layouts)


def tiny() -> Run:
    """Moving shapes with captions, four frames of 48 x 48 pixels; two CPU cores train it in a minute."""
    shape = {"width": 96, "depth": 4, "num_heads": 4, "gelu": "tanh", "linear_init": "glorot"}
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=800, num_test=100, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=SigLIPConfig(
            vision=ImageTowerArchitecture(**shape, num_frames=4, size=48, patch_size=8, **SIGLIP_PIXELS),
            text=TextArchitecture(**{**shape, "depth": 2}, vocab_size=128, max_length=16),
            bias=-3.0,
        ),
        optim=AdamW(lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.95), schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(400)),
        evals=(Retrieval(),),
    )


def b16_224() -> Run:
    """ViT-B/16 at 224 pixels, as released."""
    return _released(width=768, depth=12, num_heads=12, mlp_dim=3072, size=224, patch_size=16)


def b16_256() -> Run:
    """ViT-B/16 at 256 pixels, as released."""
    return _released(width=768, depth=12, num_heads=12, mlp_dim=3072, size=256, patch_size=16)


def l16_256() -> Run:
    """ViT-L/16 at 256 pixels, as released."""
    return _released(width=1024, depth=24, num_heads=16, mlp_dim=4096, size=256, patch_size=16)


def so400m_384() -> Run:
    """The shape-optimised network of 400 million weights, patches of 14, at 384 pixels, as released."""
    return _released(width=1152, depth=27, num_heads=16, mlp_dim=4304, size=384, patch_size=14)


def _released(*, width: int, depth: int, num_heads: int, mlp_dim: int, size: int, patch_size: int) -> Run:
    """A released size. Its frames are the largest square of whole patches within ``size``."""
    whole = size // patch_size * patch_size
    shape = {"width": width, "depth": depth, "num_heads": num_heads, "mlp_ratio": mlp_dim / width, "gelu": "tanh"}
    clip = Clip(num_frames=1, size=whole, crop="random_resized")
    return Run(
        data=Data(reads=Captioned(max_length=64, start=False), clip=clip, batch_size=32_768, num_workers=8),
        objective=SigLIPConfig(
            vision=ImageTowerArchitecture(**shape, num_frames=1, size=whole, patch_size=patch_size, **SIGLIP_PIXELS),
            text=TextArchitecture(**shape, vocab_size=32_000, max_length=64),
        ),
        optim=AdamW(lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.95), schedule=Cosine(warmup=Steps(20_000))),
        train=Loop(length=Steps(100_000), precision="bfloat16", checkpoint=True),
        evals=(Retrieval(),),
    )
