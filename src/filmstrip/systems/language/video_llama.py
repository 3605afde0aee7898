"""Video-LLaMA: queries read each frame, a place in time is added, and queries of the clip read the frames' queries.

The frames' queries are BLIP-2's, frozen like the image encoder below them and the language model above; a learned
vector for each frame's number is added to its tokens, and a second, small query transformer makes of all frames a few
tokens for the language model. That transformer, the vectors of time and a linear layer learn. An image is a video of
one frame. Zhang et al., "Video-LLaMA: An Instruction-tuned Audio-Visual Language Model for Video Understanding",
EMNLP 2023 (demonstrations).

    filmstrip train language.video_llama:vicuna_7b_stage1 --data CAPTIONS.json --init BLIP2_RUN \\
        --objective.encoder-run BLIP2_RUN --objective.decoder-run VICUNA --data.reads.tokenizer VICUNA
    filmstrip train language.video_llama:vicuna_7b_stage2 --data DIALOGUES.json --init RUN ...

Two layers with cross-attention in each, 32 queries and 32 places in time are those of the public code; the text calls
its architecture BLIP-2's, which has 12. ``--init`` takes a run of ``language.blip2``'s first stage.

Where we deviate: there is no audio; the language model is frozen in both stages, as the text says in most places (in
two it adapts it). The frames' queries are kept in the run, and not by reference.

The paper's own section has no figures. Others report for it, of Video-ChatGPT's questions, a mean of 1.98 (LongVLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.query_connector import QueryReader, begun_from
from filmstrip.models.query_transformer import QueryTransformer, QueryTransformerConfig
from filmstrip.nn.linear import Linear
from filmstrip.objectives.language import Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Grid, Objective
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


@dataclass(frozen=True, kw_only=True)
class VideoQueriesConfig(ConnectorConfig):
    """Queries of frames, places in time, and queries of the clip."""

    frames: QueryTransformerConfig
    """Query transformer that reads each frame alone."""
    clip: QueryTransformerConfig
    """Query transformer that reads the queries of all frames; their width is that of its context."""
    max_frames: Count = 32
    """Maximum number of frames of a clip."""
    frozen: bool = True
    """Whether the frames' queries are frozen."""

    def build(self, visual_width: int, width: int) -> VideoQueries:
        """Build the connector with fresh weights."""
        return VideoQueries(self, visual_width, width)


class VideoQueries(Connector):
    """As many tokens of a clip as its query transformer has queries, whatever the number of frames."""

    with_summary = True

    def __init__(self, config: VideoQueriesConfig, visual_width: int, width: int) -> None:
        super().__init__()
        self.frozen = config.frozen
        self.num_queries = config.clip.num_queries
        inner = config.frames.width
        self.reader = QueryReader(config.frames, visual_width)
        self.time_pos_embed = nn.Parameter(torch.empty(config.max_frames, inner).normal_())
        self.clip = QueryTransformer(replace(config.clip, context_width=inner))
        self.project = Linear(config.clip.width, width)
        if config.frozen:
            self.reader.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As any module, but frozen queries of frames stay in evaluation."""
        super().train(mode)
        if self.frozen:
            self.reader.eval()
        return self

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip."""
        return self.num_queries

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens ``B K D`` of the language model.

        Raises:
            ValueError: there are more frames than places in time.
        """
        if grid.t > self.time_pos_embed.shape[0]:
            raise ValueError(f"{grid.t} frames exceed the {self.time_pos_embed.shape[0]} places in time (max_frames)")
        frames = rearrange(self.reader.of_steps(tokens, grid.t), "b (t k) d -> b t k d", t=grid.t)
        frames = frames + self.time_pos_embed[: grid.t, None]
        return self.project(self.clip(rearrange(frames, "b t k d -> b (t k) d")).queries)


@dataclass(frozen=True, kw_only=True)
class VideoLlamaConfig(VideoLanguageConfig):
    """A frozen encoder, queries of frames and of the clip, and a frozen language model."""

    connector: VideoQueriesConfig
    """Queries between the encoder and the language model."""
    trains: tuple[Part, ...] = ("connector",)
    """Parts that are trained; the others are frozen, and kept by reference where their run is named."""

    def build(self) -> VideoLlama:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, or nothing is trained.
        """
        return VideoLlama(self)


class VideoLlama(VideoLanguage):
    """A language model that reads a clip's queries."""

    def taken_from(self, other: Objective) -> Mapping[str, Tensor] | None:
        """The encoder and the queries of BLIP-2's first stage, for frames."""
        return begun_from(other, self, "connector.reader")


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames = 32, 4
    queries = QueryTransformerConfig(num_queries=4, width=64, depth=1, num_heads=4, mlp_dim=128)
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=64),
            batch_size=16,
        ),
        objective=VideoLlamaConfig(
            encoder=ImageTowerConfig(
                width=64,
                depth=2,
                num_heads=4,
                num_frames=frames,
                size=size,
                patch_size=16,
                pool="class",
                linear_init="glorot",
            ),
            connector=VideoQueriesConfig(frames=queries, clip=queries, max_frames=8, frozen=False),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
            trains=("encoder", "connector", "decoder"),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def vicuna_7b_stage1() -> Run:
    """Captions of 2.5M videos and 595K images: 22M weights are trained."""
    return _stage("caption", steps=12_500, warmup=2500, batch_size=32, lr=1e-4, final=0.8, start=0.01)


def vicuna_7b_stage2() -> Run:
    """Instructions about images and videos."""
    return _stage("v0", steps=3000, warmup=1000, batch_size=4, lr=3e-5, final=1 / 3, start=1 / 30)


def _stage(
    form: Literal["caption", "v0"],
    *,
    steps: int,
    warmup: int,
    batch_size: int,
    lr: float,
    final: float,
    start: float,
) -> Run:
    below = find("language.blip2:stage2_vit_g_vicuna_7b").objective
    assert isinstance(below, VideoLanguageConfig)
    frames = replace(below.connector.queries, max_length=512)
    return Run(
        data=Data(
            clip=Clip(num_frames=8, sampling="uniform", size=224, crop="random_resized"),
            reads=Conversations(format=form, max_length=352),
            batch_size=batch_size,
            num_workers=8,
        ),
        objective=VideoLlamaConfig(
            encoder=below.encoder,
            connector=VideoQueriesConfig(frames=frames, clip=replace(frames, depth=2, cross_every=1)),
            decoder=below.decoder,
        ),
        optim=AdamW(lr=lr, weight_decay=0.05, schedule=Cosine(warmup=Steps(warmup), start=start, final=final)),
        train=Loop(length=Steps(steps), precision="bfloat16", checkpoint=True, clip_grad=None),
    )
