"""Frozen in Time: videos and texts as vectors of one space; images are videos of one frame, and clips grow in stages.

A transformer whose attention is divided over time and space reads a clip, a small BERT its caption; a softmax over
the batch chooses each clip's caption and each caption's clip. What attention over time adds is zero at first, and
positions of frames that a run before this one lacked begin at zero: a network that learnt from single frames, of
images and videos, goes on with clips of 4, then 8 frames from where it was. Bain et al., "Frozen in Time: A Joint
Video and Image Encoder for End-to-End Retrieval", ICCV 2021. The block is
:class:`filmstrip.nn.space_time.SpaceResidualBlock`, the loss is in :mod:`filmstrip.objectives.contrastive`.

    filmstrip train language.frozen_in_time:base_1f --data VIDEOS IMAGES --data.weights 1 1 \
        --data.reads.tokenizer FOLDER --out runs/one
    filmstrip train language.frozen_in_time:base_4f --data VIDEOS IMAGES --data.weights 1 1 --init runs/one
    filmstrip search runs/one videos/ "a red ball rolls behind the cup"

``--init`` also takes a ViT of the Hub, or a file of the authors' weights (their checkpoints hold an object of their
code beside the weights, which is never run: save ``state_dict`` alone). ``--objective.text-run hf:OWNER/NAME`` begins
the texts' tower as a BERT or DistilBERT in the Hub's layout, whose tokenizer then reads captions.

Where we deviate: time begins at zero by the last layer of its attention. The authors' code zeroes queries, keys and
values instead, whose gradients keep queries and keys at zero, and the values at rank one, for good: what it has as
attention over time is a mean. The loss is the mean of its two directions, where they sum them; equal captions of a
batch are no negatives; attention weights have no dropout. Beside clips of several frames an image is shown as one
that stands still, where they alternate batches of images and of videos. Batches of 4 and 8 frames are as large as we
remember the paper's.

``filmstrip claims frozen_curriculum`` asks what growing in stages is worth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, Rate
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.evals.retrieval import Retrieval
from filmstrip.models.text_transformer import TextArchitecture, TextTransformer
from filmstrip.models.video_transformer import (
    SPACE_RESIDUAL,
    SpaceTimeTransformer,
    TransformerArchitecture,
    as_many_frames,
)
from filmstrip.nn.masks import present
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.objectives.contrastive import Pairing, TextTowerConfig, normalised, projection
from filmstrip.objectives.matching import valid_tokens
from filmstrip.protocols import Layout
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import fuse, layers, pair, unfuse

_PARTS = ("q_lin", "k_lin", "v_lin")
_PATCHES = "embed.proj.weight"
_PUBLISHED = (
    (r"^encoder\.embed\.proj\.", "video_model.patch_embed.proj."),
    (r"^encoder\.time_pos_embed$", "video_model.temporal_embed"),
    (r"^encoder\.(.*)\.time_norm\.", r"video_model.\1.norm3."),
    (r"^encoder\.(.*)\.time_attention\.", r"video_model.\1.timeattn."),
    (r"^encoder\.(.*)\.attention\.", r"video_model.\1.attn."),
    (r"^encoder\.", "video_model."),
    (r"attn\.out\.", "attn.proj."),
    (r"^text\.embed\.", "text_model.embeddings.word_embeddings."),
    (r"^text\.pos_embed$", "text_model.embeddings.position_embeddings.weight"),
    (r"^text\.embed_norm\.", "text_model.embeddings.LayerNorm."),
    (r"^text\.blocks\.(\d+)\.attention\.out\.", r"text_model.transformer.layer.\1.attention.out_lin."),
    (r"^text\.blocks\.(\d+)\.norm1\.", r"text_model.transformer.layer.\1.sa_layer_norm."),
    (r"^text\.blocks\.(\d+)\.norm2\.", r"text_model.transformer.layer.\1.output_layer_norm."),
    (r"^text\.blocks\.(\d+)\.mlp\.fc(\d)\.", r"text_model.transformer.layer.\1.ffn.lin\2."),
    (r"^text\.blocks\.", "text_model.transformer.layer."),
    (r"^video_head\.", "vid_proj.0."),
    (r"^text_head\.", "txt_proj.1."),
)
"""Ours to theirs."""


_ATTENTION, _WORDS = "attention.qkv", "embeddings.word_embeddings.weight"
_EMBEDDINGS = (
    (_WORDS, "embed.weight"),
    ("embeddings.position_embeddings.weight", "pos_embed"),
    *pair("embeddings.LayerNorm", "embed_norm"),
)
_BERT = KeyMap(
    (
        *_EMBEDDINGS,
        *layers(
            "encoder.layer",
            "blocks",
            (
                *pair("attention.self.qkv", _ATTENTION),
                *pair("attention.output.dense", "attention.out"),
                *pair("attention.output.LayerNorm", "norm1"),
                *pair("intermediate.dense", "mlp.fc1"),
                *pair("output.dense", "mlp.fc2"),
                *pair("output.LayerNorm", "norm2"),
            ),
        ),
    ),
    spare=(r"embeddings\.position_ids", r"pooler\..*", r"cls\..*"),
)
_DISTILBERT = KeyMap(
    (
        *_EMBEDDINGS,
        *layers(
            "transformer.layer",
            "blocks",
            (
                *pair("attention.qkv", _ATTENTION),
                *pair("attention.out_lin", "attention.out"),
                *pair("sa_layer_norm", "norm1"),
                *pair("ffn.lin1", "mlp.fc1"),
                *pair("ffn.lin2", "mlp.fc2"),
                *pair("output_layer_norm", "norm2"),
            ),
        ),
    ),
    spare=(r"vocab_\w+\..*",),
)
_SIZES = {
    "bert": {
        "vocab_size": ("vocab_size", 30_522),
        "width": ("hidden_size", 768),
        "depth": ("num_hidden_layers", 12),
        "num_heads": ("num_attention_heads", 12),
        "max_length": ("max_position_embeddings", 512),
        "dropout": ("hidden_dropout_prob", 0.1),
        "norm_eps": ("layer_norm_eps", 1e-12),
    },
    "distilbert": {
        "vocab_size": ("vocab_size", 30_522),
        "width": ("dim", 768),
        "depth": ("n_layers", 6),
        "num_heads": ("n_heads", 12),
        "max_length": ("max_position_embeddings", 512),
        "dropout": ("dropout", 0.1),
    },
}
"""Our sizes by theirs, with what a ``config.json`` may leave out."""


def text_in_hub(config: Mapping[str, Any], own: TextArchitecture, source: str) -> TextArchitecture:
    """The tower of texts that the ``config.json`` of a BERT or DistilBERT describes, initialised as ``own``.

    Raises:
        UserError: it describes another model, or one with another activation or other positions.
    """
    kind = config.get("model_type")
    if kind not in _SIZES:
        raise UserError(f"{source} is a {kind}: the tower of texts can begin as a BERT or a DistilBERT")
    act = config.get("hidden_act" if kind == "bert" else "activation", "gelu")
    positions = config.get("position_embedding_type", "absolute")
    if act != "gelu" or positions != "absolute":
        raise UserError(
            f"{source} has the activation {act!r} and {positions} positions: 'gelu' and absolute positions are known"
        )
    found = {ours: config.get(theirs, missing) for ours, (theirs, missing) in _SIZES[kind].items()}
    hidden = config.get("intermediate_size" if kind == "bert" else "hidden_dim", 3072)
    return TextArchitecture(
        **{"norm_eps": 1e-12, **found},
        mlp_ratio=hidden / found["width"],
        norm="post",
        linear_init=own.linear_init,
    )


def text_from_hub(theirs: Mapping[str, Tensor]) -> Weights:
    """Weights of a tower of texts from those of a BERT or DistilBERT; its only kind of segment is part of positions.

    Raises:
        UserError: it has a name that neither has, or lacks a part of an attention.
    """
    own = {re.sub(r"^(?:distil)?bert\.", "", name): value for name, value in theirs.items()}
    if any(name.startswith("transformer.") for name in own):
        return _DISTILBERT.ours(fuse(own, parts=_PARTS))
    kinds, places = own.pop("embeddings.token_type_embeddings.weight", None), "embeddings.position_embeddings.weight"
    if kinds is not None and places in own:
        own[places] = own[places] + kinds[0]
    return _BERT.ours(fuse(own))


class FrozenInTimeEncoder(SpaceTimeTransformer):
    """An :class:`~filmstrip.protocols.Encoder` of clips of up to its number of frames, images among them."""

    def __init__(self, config: TransformerArchitecture) -> None:
        super().__init__(SPACE_RESIDUAL, config, time_positions=True, grows=True)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' checkpoints, whose texts are read by a DistilBERT."""
        return (
            Layout(
                name="frozen_in_time",
                rules=_PUBLISHED,
                after=(r"text_model\..*", r"(?:txt|vid)_proj\..*"),
                spare=(r".*\.position_ids",),
                absent=("log_scale",),
                unpack=partial(fuse, parts=_PARTS),
                pack=_packed,
                to_ours=self._to_ours,
                to_theirs=self._to_theirs,
            ),
        )

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        """Patches are projected by a convolution there; positions of frames may be more or fewer."""
        if name.endswith(_PATCHES):
            return conv_to_linear(tensor[:, :, None])
        return as_many_frames(tensor[0], self.grid.t) if name.endswith("time_pos_embed") else tensor

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        if name.endswith(_PATCHES):
            return linear_to_conv(tensor, self.patch_size)[:, :, 0].contiguous()
        if name.endswith(("time_pos_embed", "encoder.pos_embed")):
            return tensor[None]
        return tensor.view(1, 1, -1) if name.endswith("cls_token") else tensor


def _packed(state: Mapping[str, Tensor]) -> Weights:
    """Queries, keys and values apart in the texts' attention, and together in the video's."""
    text = {name: value for name, value in state.items() if name.startswith("text_model.")}
    return {name: value for name, value in state.items() if name not in text} | unfuse(text, parts=_PARTS)


class FrozenInTime(Pairing):
    """A :class:`~filmstrip.protocols.DualEncoder`: a clip is read by its class token, a text by its first."""

    starts_rest = True

    def __init__(self, config: FrozenInTimeConfig) -> None:
        super().__init__(config)
        self.log_scale.requires_grad_(False)
        self.encoder = FrozenInTimeEncoder(config)
        self.text = TextTransformer(config.text)
        self.video_head = projection(config.width, config.embed_dim, bias=True)
        self.text_head = projection(config.text.width, config.embed_dim, bias=True)

    def text_from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """See :class:`~filmstrip.protocols.TextFromTransformers`: those of a BERT or DistilBERT."""
        return {f"text.{name}": value for name, value in text_from_hub(theirs).items()}

    def encode_video(self, video: Tensor) -> Tensor:
        """Vectors ``B D`` of ``B T C H W`` video, of length one; images have one frame."""
        return normalised(self.video_head(self.encoder(video).pooled()))

    def encode_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors ``B D`` of texts, token ids ``B L`` and their lengths ``B``, of length one."""
        valid = valid_tokens(ids, lengths)
        return normalised(self.text_head(F.relu(self.text(ids, mask=present(valid))[:, 0])))


@dataclass(frozen=True, kw_only=True)
class FrozenInTimeConfig(TransformerArchitecture, TextTowerConfig):
    """A transformer of clips, one of texts, and the vectors in which they are compared."""

    has_text_run: ClassVar[bool] = True

    text_run: str | None = None
    """Folder of a BERT or DistilBERT in the Hub's layout, or ``hf:OWNER/NAME``, as which the tower of texts begins
    when training starts; its sizes replace those of ``text``."""
    loss: Literal["sigmoid", "softmax"] = "softmax"
    scale: Rate = 20.0
    """Factor of the cosines, the inverse of the temperature; it is not learned."""
    embed_dim: Count = 256
    """Channels of the vectors that are compared."""

    def with_text_of_hub(self, config: Mapping[str, Any], source: str) -> Self:
        """See :meth:`ObjectiveConfig.with_text_of_hub`.

        Raises:
            UserError: it is no BERT or DistilBERT.
        """
        return replace(self, text=text_in_hub(config, self.text, source))

    def build(self) -> FrozenInTime:
        """Build the network with fresh weights."""
        return FrozenInTime(self)


def tiny() -> Run:
    """Moving shapes with captions, four frames of 48 x 48 pixels; two CPU cores train it in a minute."""
    shape: dict[str, Any] = {"width": 64, "num_heads": 4, "linear_init": "glorot"}
    return Run(
        data=Data(
            synthetic=NarratedShapes(num_train=800, num_test=100, num_frames=4, size=48, labels="form"),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=4, sampling="uniform", size=48, short_side=(48, 48)),
            augment=Augment(mirror=0.0),
            batch_size=32,
        ),
        objective=FrozenInTimeConfig(
            **shape,
            depth=3,
            num_frames=4,
            size=48,
            patch_size=8,
            text=TextArchitecture(**shape, depth=2, vocab_size=128, max_length=16, norm="post", norm_eps=1e-12),
            embed_dim=64,
        ),
        optim=AdamW(lr=1e-3, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(400)),
        evals=(Retrieval(),),
    )


def base_1f() -> Run:
    """The first stage: single frames of WebVid-2M's videos, and the images of CC3M."""
    return _base(1, batch_size=448)


def base_4f() -> Run:
    """The second stage: 4 frames, from a run of the first."""
    return _base(4, batch_size=24)


def base_8f() -> Run:
    """The third stage: 8 frames, from a run of the second."""
    return _base(8, batch_size=16)


def _base(num_frames: int, *, batch_size: int) -> Run:
    """ViT-B/16 with attention over time, at 224 pixels, and a DistilBERT; its rate is that of the published code."""
    return Run(
        data=Data(
            reads=Captioned(max_length=64),
            clip=Clip(num_frames=num_frames, sampling="segments", size=224, crop="random_resized", area=(0.5, 1.0)),
            augment=Augment(mirror=0.0),
            batch_size=batch_size,
            num_workers=16,
        ),
        objective=FrozenInTimeConfig(
            width=768,
            depth=12,
            num_heads=12,
            num_frames=num_frames,
            size=224,
            patch_size=16,
            text=TextArchitecture(
                vocab_size=30_522,
                width=768,
                depth=6,
                num_heads=12,
                max_length=512,
                norm="post",
                norm_eps=1e-12,
                dropout=0.1,
            ),
        ),
        optim=AdamW(lr=3e-5, weight_decay=0.0, eps=1e-6, schedule=Constant()),
        train=Loop(length=Epochs(10), precision="bfloat16", clip_grad=None),
        evals=(Retrieval(),),
    )
