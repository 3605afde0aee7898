"""Qwen-VL: one attention with 256 queries, whose positions tell places apart, feeds an image of any size to a
language model, which reads and writes boxes as text.

The queries lie on a grid of 16 x 16; sines and cosines of its rows and columns are added to them, and the same ones,
resized to the image's grid, to the keys, not to the values. Encoder and adapter learn from captions first, then all
parts at 448 pixels, then adapter and language model from instructions. Bai et al., "Qwen-VL: A Versatile
Vision-Language Model for Understanding, Localization, Text Reading, and Beyond", 2023.

    filmstrip train language.qwen_vl:stage1 --data CAPTIONS.json --objective.decoder-run QWEN \\
        --data.reads.tokenizer QWEN

The adapter is ``QueryPooling`` of ``models/query_transformer.py``; the heads, norms and the layers around it, which
the text leaves out, are those of the public code.

Where we deviate: of a video every frame is read alone, and the frames' tokens follow one another; the language
model's special tokens (``<img>``, ``<box>``) are not added by us, and frozen with it in the first stage; sequences
are not packed. The encoder's table of positions at 448 pixels is one of its own, not the resized one of 224.

The paper reports: Nocaps 121.4, VQAv2 79.5, TextVQA 63.8, RefCOCO testA 92.26, VizWiz 38.9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.query_transformer import QueryPooling, QueryPoolingConfig
from filmstrip.nn.linear import Linear
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.objectives.language import Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Grid
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(ConnectorConfig):
    """One attention from queries with positions."""

    side: Count = 16
    """Number of rows and of columns of queries."""
    num_heads: Count = 32
    """Attention heads."""
    positions: bool = True
    """Whether queries and keys have positions."""

    def build(self, visual_width: int, width: int) -> Adapter:
        """Build the connector with fresh weights."""
        return Adapter(self, visual_width, width)


class Adapter(Connector):
    """As many tokens of each frame as there are queries, in their order."""

    def __init__(self, config: AdapterConfig, visual_width: int, width: int) -> None:
        super().__init__()
        self.side = config.side
        self.pool = QueryPooling(
            QueryPoolingConfig(
                num_queries=config.side**2,
                width=width,
                num_heads=config.num_heads,
                context_width=visual_width,
                project=True,
                grid=(config.side, config.side) if config.positions else None,
            )
        )
        self.project = Linear(width, width, bias=False)

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip whose visual tokens lie on a grid."""
        return grid.t * self.side**2

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens ``B T*K D`` of the language model."""
        frames = rearrange(tokens, "b (t n) c -> (b t) n c", t=grid.t)
        return rearrange(self.project(self.pool(frames, grid)), "(b t) k d -> b (t k) d", t=grid.t)


@dataclass(frozen=True, kw_only=True)
class QwenVLConfig(VideoLanguageConfig):
    """An image encoder, an adapter of queries with positions, and a language model."""

    connector: AdapterConfig = field(default_factory=AdapterConfig)
    """Connector of visual tokens to the language model."""

    def build(self) -> QwenVL:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, the language model is both trained and adapted, or
                nothing is trained.
        """
        return QwenVL(self)


class QwenVL(VideoLanguage):
    """A language model that sees through queries with positions."""

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; the adapter and the language model come after the last."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 2


QWEN_7B = DecoderConfig(
    vocab_size=151_936, width=4096, depth=32, num_heads=32, mlp_dim=11_008, qkv_bias=True, norm_eps=1e-6
)


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames, side = 32, 4, 2
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=64),
            batch_size=16,
        ),
        objective=QwenVLConfig(
            encoder=ImageTowerConfig(
                width=64,
                depth=2,
                num_heads=4,
                num_frames=frames,
                size=size,
                patch_size=8,
                pool="none",
                final_norm=False,
                linear_init="glorot",
            ),
            connector=AdapterConfig(side=side, num_heads=4),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128, qkv_bias=True),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def stage1() -> Run:
    """Captions of 1.4B images at 224 pixels, with Qwen-7B frozen: 1.9B of 9.6B parameters are trained."""
    return _stage(1)


def stage2() -> Run:
    """All parts at 448 pixels, on 77M examples of seven tasks and of text."""
    return _stage(2)


def stage3() -> Run:
    """Instructions at 448 pixels, with the encoder frozen."""
    return _stage(3)


def _stage(stage: Literal[1, 2, 3]) -> Run:
    size = 224 if stage == 1 else 448
    trains: tuple[tuple[Part, ...], ...] = (
        ("encoder", "connector"),
        ("encoder", "connector", "decoder"),
        ("connector", "decoder"),
    )
    steps, batch_size, lr, warmup = ((50_000, 30_720, 2e-4, 500), (19_000, 4096, 5e-5, 400), (8000, 128, 1e-5, 3000))[
        stage - 1
    ]
    return Run(
        data=Data(
            clip=Clip(num_frames=1, size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(format="caption" if stage == 1 else "hub", max_length=2048),
            batch_size=batch_size,
            num_workers=8,
        ),
        objective=QwenVLConfig(
            encoder=ImageTowerConfig(
                width=1664,
                depth=48,
                num_heads=16,
                mlp_ratio=8192 / 1664,
                num_frames=1,
                size=size,
                patch_size=14,
                pool="none",
                final_norm=False,
                norm_before=True,
                patch_bias=False,
                mean=CLIP_MEAN,
                std=CLIP_STD,
            ),
            decoder=QWEN_7B,
            trains=trains[stage - 1],
        ),
        optim=AdamW(
            lr=lr,
            betas=(0.9, 0.98),
            weight_decay=0.05,
            layer_decay=0.95 if stage < 3 else 1.0,
            schedule=Cosine(warmup=Steps(warmup)),
        ),
        train=Loop(length=Steps(steps), precision="bfloat16", checkpoint=True),
    )
