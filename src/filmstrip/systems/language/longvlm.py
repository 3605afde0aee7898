"""LongVLM: a long video in 305 tokens, similar ones merged within segments and class tokens of the whole in front.

One hundred frames are ten segments in order of time. In each, the 2,560 tokens of a frozen image encoder are merged
with the most similar ones until 30 are left (Bolya et al. 2023, ToMe: every second token joins the most similar of
the others, in means weighted by size). The class tokens of the encoder's last five layers, averaged over all frames,
stand in front. One linear layer maps all of them to a language model, and alone is trained. Weng et al., "LongVLM:
Efficient Long Video Understanding via Large Language Models", ECCV 2024.

    filmstrip train language.longvlm:vicuna_7b --data VIDEO_CHATGPT.json --init hf:LLAVA_7B_V1.1 \\
        --objective.encoder-run CLIP
    filmstrip train language.longvlm:vicuna_7b --data VIDEO_CHATGPT.json --objective.encoder-run CLIP \\
        --objective.decoder-run VICUNA --data.reads.tokenizer VICUNA
    filmstrip train language.longvlm:tiny

Merging is in ``nn/token_merging.py``: that of the published code, which halves the tokens of a segment in each step
(1280, 640, 320, 160, 80, 40 and 10 are gone). The paper's text says otherwise of four things: tokens are split at
random (here: even and odd places), pairs are disjoint (several may join one token), a pair's mean is plain
(weighted), and similarity is the mean over heads of cosines (the cosine of the mean over heads). Merged tokens keep
no order within their segment. No memory, no streaming and no sparse attention is part of it.

Where we deviate: the released script for features is for 336 pixels and leaves 50 tokens of a segment; ours has the
paper's 224 pixels and 30. Marks around the video, whose embeddings the authors train, are left out. Where frames are
no multiple of ten, segments differ by a frame; each has a frame at least. Features are not kept: the encoder sees
every clip anew. The paper's rate, 2e-5, is low for one new layer: it starts from LLaVA's.

The paper reports, of Video-ChatGPT's questions as judged by GPT, a mean of 2.89 (Video-ChatGPT 2.42; pooling 2.64,
merging alone 2.72, class tokens behind 2.82), and 47.6, 59.8 and 70.0% of ActivityNet-, MSRVTT- and MSVD-QA. We
measured none of these; ``filmstrip claims longvlm_merging longvlm_global longvlm_segments`` ask what each part is
good for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.llama_layout import decoder_config
from filmstrip.models.llava_layout import from_llava
from filmstrip.nn.linear import Linear
from filmstrip.nn.token_merging import merged
from filmstrip.objectives.language import VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Grid
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights


@dataclass(frozen=True, kw_only=True)
class SegmentsConfig(ConnectorConfig):
    """Tokens merged within segments, class tokens of the whole clip, and one linear layer."""

    segments: Count = 10
    """Number of segments of a clip, in order of time."""
    to: Count = 30
    """Number of tokens that are left of a segment."""
    class_layers: CountOrZero = 5
    """Number of the encoder's last layers whose class tokens, averaged over time, are read, too."""
    classes: Literal["first", "last"] = "first"
    """Whether class tokens stand in front of those of segments, or behind them."""
    num_heads: Count = 16
    """Number of the encoder's heads, of whose mean two tokens' similarity is."""

    def build(self, visual_width: int, width: int) -> Segments:
        """Build the connector with fresh weights."""
        return Segments(self, visual_width, width)


class Segments(Connector):
    """Merges tokens within each segment of a clip, then maps them and the clip's class tokens to the language model.

    Segments differ by a time step at most, and have one at least.
    """

    def __init__(self, config: SegmentsConfig, visual_width: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.class_layers = config.class_layers
        self.layers = nn.Sequential(Linear(visual_width, width))

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip."""
        local = sum(min(self.config.to, steps * grid.h * grid.w) for steps in self._steps(grid))
        return self.config.class_layers + local

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens ``B N D`` of the language model, of ``B E+M C``: ``E`` class tokens, then those of the grid."""
        classes, local = tokens.split([self.config.class_layers, grid.t * grid.h * grid.w], dim=1)
        parts = local.split([steps * grid.h * grid.w for steps in self._steps(grid)], dim=1)
        left = [self.reduced(part, grid) for part in parts]
        return self.layers(torch.cat([classes, *left] if self.config.classes == "first" else [*left, classes], dim=1))

    def reduced(self, segment: Tensor, grid: Grid) -> Tensor:
        """What is left ``B N C`` of the tokens ``B M C`` of a segment, whose time steps have the rows and columns of
        a grid."""
        return merged(segment, self.config.to, num_heads=self.config.num_heads).tokens

    def _steps(self, grid: Grid) -> list[int]:
        """Number of time steps of each segment."""
        count = min(self.config.segments, grid.t)
        return [(i + 1) * grid.t // count - i * grid.t // count for i in range(count)]


@dataclass(frozen=True, kw_only=True)
class LongVLMConfig(VideoLanguageConfig):
    """An image encoder, merging within segments, and a language model."""

    hub_types: ClassVar[tuple[str, ...]] = ("llava",)

    connector: SegmentsConfig = field(default_factory=SegmentsConfig)
    """Connector of visual tokens to the language model."""

    def as_published(self, config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str) -> Self:
        """With the sizes of the language model of a LLaVA in its authors' layout.

        Raises:
            UserError: it is in another layout, whose connector has two layers.
        """
        if "vision_config" in config:
            raise UserError(
                f"{source} is a LLaVA of transformers, whose connector has two layers: LongVLM starts from one with "
                "a single layer (LLaVA-7B-v1.1), in its authors' layout"
            )
        return replace(self, decoder=decoder_config({**config, "model_type": "llama"}, source))

    def build(self) -> LongVLM:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, the language model is both trained and adapted, or
                nothing is trained.
        """
        return LongVLM(self)


class LongVLM(VideoLanguage):
    """A language model that reads merged tokens of segments, and class tokens of the whole."""

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """The weights from those of a LLaVA with one linear layer, or of a released LongVLM, of which neither has an
        encoder.

        Raises:
            UserError: a weight has no place here, or one of the connector or the language model is missing.
        """
        return from_llava(theirs, self, self.decoder.config)


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames = 32, 6
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=64),
            batch_size=16,
        ),
        objective=LongVLMConfig(
            encoder=ImageTowerConfig(
                width=64,
                depth=3,
                num_heads=4,
                num_frames=frames,
                size=size,
                patch_size=8,
                pool="class",
                linear_init="glorot",
            ),
            connector=SegmentsConfig(segments=3, to=5, class_layers=2, num_heads=4),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def vicuna_7b() -> Run:
    """CLIP's ViT-L/14 over 100 frames, and Vicuna-7B; the linear layer alone is trained, on 100K conversations."""
    below = find("language.llava:v0_7b_stage2").objective
    assert isinstance(below, VideoLanguageConfig)
    return Run(
        data=Data(
            clip=Clip(num_frames=100, sampling="uniform", size=224, short_side=(224, 224)),
            augment=Augment(mirror=0.0),
            reads=Conversations(format="v1", max_length=2048),
            batch_size=32,
            num_workers=8,
        ),
        objective=LongVLMConfig(encoder=below.encoder, layer=-2, decoder=below.decoder, trains=("connector",)),
        optim=AdamW(lr=2e-5, betas=(0.9, 0.999), weight_decay=0.0, schedule=Cosine(warmup=0.03)),
        train=Loop(length=Epochs(3), precision="bfloat16", checkpoint=True),
    )
