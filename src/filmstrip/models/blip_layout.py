"""Names of ``transformers``' models with a query transformer between an encoder and a language model, and ours.

Those of BLIP-2 and InstructBLIP: ``Blip2ForConditionalGeneration``, ``InstructBlipVideoForConditionalGeneration``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models import query_transformer as queries
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.image_tower import ImageTower
from filmstrip.models.llama_layout import config_in_hub, decoder_config, from_llama, to_llama
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.weights.hub import statistics_of
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import layers, pair

BLOCK = (
    ("layer_norm1.weight", "norm1.weight"),
    ("layer_norm1.bias", "norm1.bias"),
    ("self_attn.qkv.weight", "attention.qkv.weight"),
    ("self_attn.qkv.bias", "attention.qkv.bias"),
    ("self_attn.projection.weight", "attention.out.weight"),
    ("self_attn.projection.bias", "attention.out.bias"),
    ("layer_norm2.weight", "norm2.weight"),
    ("layer_norm2.bias", "norm2.bias"),
    ("mlp.fc1.weight", "mlp.fc1.weight"),
    ("mlp.fc1.bias", "mlp.fc1.bias"),
    ("mlp.fc2.weight", "mlp.fc2.weight"),
    ("mlp.fc2.bias", "mlp.fc2.bias"),
)
_PATCHES = "encoder.embed.proj.weight"
_OWN_NORM = ("encoder.norm.weight", "encoder.norm.bias")
"""The norm of our encoder, which theirs lacks: in front of another one it changes nothing while it scales by one."""


VISION = (
    ("vision_model.embeddings.class_embedding", "encoder.cls_token"),
    ("vision_model.embeddings.position_embedding", "encoder.pos_embed"),
    *pair("vision_model.embeddings.patch_embedding", "encoder.embed.proj"),
    *layers("vision_model.encoder.layers", "encoder.blocks", BLOCK),
    *pair("vision_model.post_layernorm", "visual_norm"),
)
"""The frozen encoder and the norm of its tokens."""
OURS_ALONE = (r"encoder\.norm\..*", r"encoder\.embed\.normalise\..*")
"""Patterns of our names that theirs lack."""
_LANGUAGE, _READER = "language_model.", "connector.reader."


def _without_language(query_transformer: KeyMap) -> KeyMap:
    return KeyMap(
        (
            *((theirs, ours.replace("visual_norm", f"{_READER}visual_norm")) for theirs, ours in VISION),
            ("query_tokens", f"{_READER}bridge.queries"),
            *((f"qformer.{theirs}", f"{_READER}bridge.{ours}") for theirs, ours in query_transformer.pairs),
            *pair("language_projection", "connector.project"),
        ),
        ours_alone=OURS_ALONE,
    )


def from_hub(theirs: Mapping[str, Tensor], decoder: DecoderConfig, query_transformer: KeyMap) -> Weights:
    """The weights of a language model that reads queries from those of ``transformers``, with a LLaMA in it.

    Raises:
        UserError: it has a name that no such model has.
    """
    words = {name.removeprefix(_LANGUAGE): x for name, x in theirs.items() if name.startswith(_LANGUAGE)}
    seen = {name: x for name, x in theirs.items() if not name.startswith(_LANGUAGE)}
    ours = shaped_as_ours(_without_language(query_transformer).ours(queries.fused(seen)), _READER)
    return ours | {f"decoder.{name}": x for name, x in from_llama(words, decoder).items()}


def to_hub(ours: Mapping[str, Tensor], decoder: DecoderConfig, query_transformer: KeyMap, patch_size: int) -> Weights:
    """The inverse of :func:`from_hub`."""
    words = {name.removeprefix("decoder."): x for name, x in ours.items() if name.startswith("decoder.")}
    seen = {name: x for name, x in ours.items() if not name.startswith("decoder.")}
    theirs = unfused(_without_language(query_transformer).theirs(shaped_as_theirs(seen, patch_size, _READER)))
    return theirs | {f"{_LANGUAGE}{name}": x for name, x in to_llama(words, decoder).items()}


class Sizes(NamedTuple):
    """Sizes of a published model with a query transformer."""

    tower: dict[str, Any]
    """Settings of the frozen encoder, an :class:`~filmstrip.models.image_tower.ImageTowerArchitecture`."""
    queries: queries.QueryTransformerConfig
    decoder: DecoderConfig


_TOWER = {
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
}
_QUERIES = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "cross_attention_frequency": 2,
}
"""What a ``config.json`` may leave out, as ``transformers`` completes it."""


def sizes_of(config: Mapping[str, Any], preprocessing: Mapping[str, Any], source: str, *, reads_text: bool) -> Sizes:
    """The sizes in the ``config.json`` of a BLIP-2 or InstructBLIP, whose queries may read text.

    Raises:
        UserError: its language model is of another family than LLaMA's, or its encoder is another one.
    """
    vision = _TOWER | dict(config.get("vision_config") or {})
    asked = _QUERIES | dict(config.get("qformer_config") or {})
    if not vision["qkv_bias"] or vision["hidden_act"] != "gelu":
        raise UserError(
            f"{source} has another encoder than EVA-CLIP's, with {vision['hidden_act']} or without biases"
        )
    tower = {
        "width": vision["hidden_size"],
        "depth": vision["num_hidden_layers"],
        "num_heads": vision["num_attention_heads"],
        "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
        "num_frames": 1,
        "size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "pool": "class",
        "norm_eps": vision["layer_norm_eps"],
        **(statistics_of(preprocessing) if "image_mean" in preprocessing else {"mean": CLIP_MEAN, "std": CLIP_STD}),
    }
    bridge = queries.QueryTransformerConfig(
        num_queries=config.get("num_query_tokens", 32),
        width=asked["hidden_size"],
        depth=asked["num_hidden_layers"],
        num_heads=asked["num_attention_heads"],
        mlp_dim=asked["intermediate_size"],
        cross_every=asked["cross_attention_frequency"],
        vocab_size=asked["vocab_size"] if reads_text else None,
        max_length=asked["max_position_embeddings"],
        norm_eps=asked["layer_norm_eps"],
        dropout=asked["hidden_dropout_prob"],
    )
    return Sizes(tower, bridge, decoder_config(config.get("text_config") or {}, source))


def config_of(tower: ImageTower, bridge: queries.QueryTransformerConfig, decoder: DecoderConfig) -> dict[str, Any]:
    """The inverse of :func:`sizes_of`, without what is told of the whole model.

    Raises:
        UserError: the encoder is another one than ``transformers`` has there.
    """
    config, text = tower.config, config_in_hub(decoder)
    if config.pool != "class" or config.norm_before or not config.patch_bias or config.gelu != "exact":
        raise UserError("transformers has this model with EVA-CLIP's encoder: others cannot be written")
    return {
        "vision_config": {
            "hidden_size": config.width,
            "num_hidden_layers": config.depth,
            "num_attention_heads": config.num_heads,
            "intermediate_size": round(config.width * config.mlp_ratio),
            "image_size": config.size,
            "patch_size": config.patch_size,
            "layer_norm_eps": config.norm_eps,
        },
        "qformer_config": {
            "hidden_size": bridge.width,
            "num_hidden_layers": bridge.depth,
            "num_attention_heads": bridge.num_heads,
            "intermediate_size": bridge.mlp_dim,
            "cross_attention_frequency": bridge.cross_every,
            "max_position_embeddings": bridge.max_length,
            "layer_norm_eps": bridge.norm_eps,
            "hidden_dropout_prob": bridge.dropout,
            "encoder_hidden_size": config.width,
            **({} if bridge.vocab_size is None else {"vocab_size": bridge.vocab_size}),
        },
        "text_config": text,
        "num_query_tokens": bridge.num_queries,
        "use_decoder_only_language_model": True,
    }


def unfused(theirs: Mapping[str, Tensor]) -> Weights:
    """Weights by their names, with the query transformer's queries, keys and values apart."""
    bridge = {name: tensor for name, tensor in theirs.items() if name.startswith("qformer.")}
    return {name: tensor for name, tensor in theirs.items() if name not in bridge} | queries.unfused(bridge)


def shaped_as_ours(weights: Weights, reader: str = "") -> Weights:
    """Weights by our names in our shapes, with the norm that theirs lacks; ``reader`` begins the names of queries."""
    token = weights["encoder.cls_token"].flatten()
    own_norm = dict(zip(_OWN_NORM, (torch.ones_like(token), torch.zeros_like(token))))
    leading = {name: weights[name][0] for name in ("encoder.pos_embed", f"{reader}bridge.queries")}
    patches = conv_to_linear(weights[_PATCHES][:, :, None])
    return {**weights, **leading, **own_norm, "encoder.cls_token": token, _PATCHES: patches}


def shaped_as_theirs(weights: Mapping[str, Tensor], patch_size: int, reader: str = "") -> Weights:
    """The inverse of :func:`shaped_as_ours`."""
    token = weights["encoder.cls_token"].view(1, 1, -1)
    leading = {name: weights[name][None] for name in ("encoder.pos_embed", f"{reader}bridge.queries")}
    patches = linear_to_conv(weights[_PATCHES], (1, patch_size, patch_size))[:, :, 0].contiguous()
    return {**weights, **leading, "encoder.cls_token": token, _PATCHES: patches}
