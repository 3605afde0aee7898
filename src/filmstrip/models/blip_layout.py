"""Names of ``transformers``' models with a query transformer between an encoder and a language model, and ours.

Those of BLIP-2 and InstructBLIP: ``Blip2ForConditionalGeneration``, ``InstructBlipVideoForConditionalGeneration``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from filmstrip.models import query_transformer as queries
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.llama_layout import from_llama, to_llama
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import layers

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


def pair(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    """The rows of a layer: its weight and its bias."""
    return tuple((f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias"))


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
