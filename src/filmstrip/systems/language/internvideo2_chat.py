"""InternVideo2, stage 3: a language model with low-rank adaptation reads a clip through queries.

A small query transformer makes of the encoder's tokens, which know their time and place, a few tokens that stand in
front of the text; the queries, a linear layer and the adaptation of the language model learn from conversations. In
high definition the clip is cut into crops, each read like a clip of its own, beside the whole clip made small. Wang
et al., "InternVideo2: Scaling Foundation Models for Multimodal Video Understanding", ECCV 2024, after Li et al.,
"MVBench: A Comprehensive Multi-modal Video Understanding Benchmark", CVPR 2024 (VideoChat2).

    filmstrip train language.internvideo2_chat:mistral_7b --data DIALOGUES.json \\
        --objective.encoder-run STAGE_2_RUN --objective.decoder-run MISTRAL --data.reads.tokenizer MISTRAL
    filmstrip train language.internvideo2_chat:mistral_7b_hd --data DIALOGUES.json --init RUN ...

Sizes are those of the lecture: 32 queries, three layers (with feed-forward networks, which it leaves out), rank 8 on
queries, keys, values and outputs. Rates, the factor of the adaptation and its dropout are those of VideoChat2's
public configurations, whose encoder learns too; here it is frozen. Its high definition cuts each clip into up to six
crops by its shape, here all into four of 224 pixels, in a stage of its own.

The paper reports, with the encoder of 1B and Mistral-7B: MVBench 60.3, EgoSchema 55.8, Perception Test 53.0; in high
definition 65.4, 60.2 and 60.1, with 16 frames 67.2, 60.0 and 63.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.models.aligned_encoder import AlignedArchitecture
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.query_connector import QueryConnectorConfig
from filmstrip.models.query_transformer import QueryTransformerConfig
from filmstrip.objectives.language import Adaptation, Part, VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import AlignedEncoderConfig
from filmstrip.protocols import as_float
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Layers that are adapted."""


@dataclass(frozen=True, kw_only=True)
class InternVideo2ChatConfig(VideoLanguageConfig):
    """A frozen encoder, queries, and a language model that is adapted."""

    connector: QueryConnectorConfig
    """Queries between the encoder and the language model."""
    trains: tuple[Part, ...] = ("connector",)
    """Parts that are trained; the others are frozen, and kept by reference where their run is named."""
    crops: Count = 1
    """Number of crops along each side of a clip; with several the whole clip is read too, made small."""

    def for_clip(self, clip: Clip) -> Self:
        """With an encoder of crops' size, unless it comes from elsewhere.

        Raises:
            UserError: clips cannot be cut into as many crops.
        """
        if clip.size % self.crops:
            raise UserError(
                f"clips of {clip.size} pixels cannot be cut into {self.crops} x {self.crops} crops: give a multiple "
                f"of {self.crops} (data.clip.size), or other crops (objective.crops)"
            )
        if self.encoder_run is not None:
            return self
        return replace(self, encoder=self.encoder.for_clip(replace(clip, size=clip.size // self.crops)))

    def build(self) -> InternVideo2Chat:
        """Build the model with fresh weights.

        Raises:
            UserError: the encoder's configuration has none, the language model is both trained and adapted, or
                nothing is trained.
        """
        return InternVideo2Chat(self)


class InternVideo2Chat(VideoLanguage):
    """A language model that reads the queries of a clip, or of its crops and of the whole."""

    def __init__(self, config: InternVideo2ChatConfig) -> None:
        super().__init__(config)
        self.crops = config.crops

    def num_tokens(self, clip: Clip) -> int:
        """Number of tokens of the language model that a clip takes: those of its crops, and of the whole."""
        each = super().num_tokens(replace(clip, size=clip.size // self.crops))
        return each * (self.crops**2 + 1) if self.crops > 1 else each

    def see(self, video: Tensor) -> Tensor:
        """Tokens ``B N D`` of the language model, of ``B T C H W`` video: row by row the crops', then the whole's."""
        if self.crops == 1:
            return super().see(video)
        parts = rearrange(video, "b t c (r h) (s w) -> (b r s) t c h w", r=self.crops, s=self.crops)
        seen = rearrange(super().see(parts), "(b k) n d -> b (k n) d", b=len(video))
        small = F.avg_pool2d(as_float(video).flatten(0, 1), self.crops).unflatten(0, video.shape[:2])
        return torch.cat([seen, super().see(small)], dim=1)


def tiny() -> Run:
    """Questions about moving shapes, all parts from scratch; trains in seconds on two CPU cores."""
    size, frames = 32, 4
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=200, num_test=40, num_frames=8, size=size),
            clip=Clip(num_frames=frames, sampling="uniform", size=size, short_side=(size, size)),
            augment=Augment(mirror=0.0),
            reads=Conversations(max_length=64),
            batch_size=16,
        ),
        objective=InternVideo2ChatConfig(
            encoder=AlignedEncoderConfig(
                width=64,
                depth=2,
                num_heads=4,
                num_frames=frames,
                size=16,
                patch_size=(1, 8, 8),
                layer_scale=0.1,
                pool_width=32,
                pool_num_heads=4,
                linear_init="glorot",
            ),
            connector=QueryConnectorConfig(
                queries=QueryTransformerConfig(num_queries=2, width=64, depth=1, num_heads=4, mlp_dim=128)
            ),
            decoder=DecoderConfig(vocab_size=128, width=64, depth=2, num_heads=4, mlp_dim=128),
            trains=("encoder", "connector", "decoder"),
            crops=2,
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.05),
        train=Loop(length=Steps(100)),
    )


def mistral_7b() -> Run:
    """The encoder of 1B weights and Mistral-7B, on eight frames of 224 pixels."""
    before = find("pretraining.internvideo2:one_b").objective
    assert isinstance(before, AlignedArchitecture)
    own = {name: getattr(before, name) for name in AlignedArchitecture.__dataclass_fields__}
    decoder = find("language.video_llama2:mistral_7b_stage1").objective
    assert isinstance(decoder, VideoLanguageConfig)
    queries = QueryTransformerConfig(num_queries=32, width=768, depth=3, num_heads=12, mlp_dim=3072, dropout=0.1)
    return Run(
        data=Data(
            clip=Clip(num_frames=8, sampling="segments", size=224, crop="random_resized", area=(0.5, 1.0)),
            augment=Augment(mirror=0.0),
            reads=Conversations(format="hub", max_length=512 + 32),
            batch_size=128,
            num_workers=8,
        ),
        objective=InternVideo2ChatConfig(
            encoder=AlignedEncoderConfig(**own | {"num_frames": 8, "patch_size": (1, *before.patch_size[1:])}),
            connector=QueryConnectorConfig(queries=queries),
            decoder=decoder.decoder,
            adaptation=Adaptation(rank=8, alpha=32.0, dropout=0.1, layers=ATTENTION),
        ),
        optim=AdamW(lr=2e-5, weight_decay=0.02, schedule=Cosine(warmup=0.2, final=0.25)),
        train=Loop(length=Epochs(3), precision="bfloat16", checkpoint=True, clip_grad=None),
    )


def mistral_7b_hd() -> Run:
    """The same in high definition: four crops of 224 pixels beside the whole clip."""
    run = mistral_7b()
    assert isinstance(run.objective, InternVideo2ChatConfig)
    return replace(
        run,
        data=replace(
            run.data,
            clip=replace(run.data.clip, size=448, short_side=(448, 448)),
            reads=Conversations(format="hub", max_length=512 + 5 * 32),
        ),
        objective=replace(run.objective, crops=2),
        optim=replace(run.optim, lr=1e-5, schedule=Cosine(warmup=0.0, final=0.01)),
        train=replace(run.train, length=Epochs(1)),
    )


def mistral_7b_hd_16() -> Run:
    """The same with 16 frames."""
    run = mistral_7b_hd()
    clip = replace(run.data.clip, num_frames=16)
    return replace(run, data=replace(run.data, clip=clip), objective=run.objective.for_clip(clip))
