"""VideoMAE checkpoints in the layout of ``transformers``: encoder, pretraining model, classifier; both ways."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.weights.keymap import KeyMap, Weights, check_names
from filmstrip.weights.layers import LAYER, layers, together

_PREFIX = "videomae."
_CONV, _LINEAR = "embeddings.patch_embeddings.projection.weight", "embed.proj.weight"

_BLOCK = (
    ("attention.attention.q_bias", "attention.q_bias"),
    ("attention.attention.v_bias", "attention.v_bias"),
    *LAYER,
)

ENCODER = KeyMap(
    (
        (_CONV, _LINEAR),
        ("embeddings.patch_embeddings.projection.bias", "embed.proj.bias"),
        *layers("encoder.layer", "blocks", _BLOCK),
        ("layernorm.weight", "norm.weight"),
        ("layernorm.bias", "norm.bias"),
    )
)
"""``VideoMAEModel``, once its queries, keys and values are fused, to :class:`~filmstrip.models.vit.ViT`."""

_INNER = tuple((f"{_PREFIX}{a}", f"encoder.{b}") for a, b in ENCODER.pairs)

PRETRAINING = KeyMap(
    (
        *_INNER,
        ("encoder_to_decoder.weight", "decoder.project.weight"),
        ("mask_token", "decoder.mask_token"),
        *layers("decoder.decoder_layers", "decoder.blocks", _BLOCK),
        ("decoder.norm.weight", "decoder.norm.weight"),
        ("decoder.norm.bias", "decoder.norm.bias"),
        ("decoder.head.weight", "decoder.head.weight"),
        ("decoder.head.bias", "decoder.head.bias"),
    )
)
"""``VideoMAEForPreTraining`` to :class:`~filmstrip.systems.pretraining.videomae.VideoMAE`."""

CLASSIFIER = KeyMap(
    (
        *_INNER,
        ("fc_norm.weight", "norm.weight"),
        ("fc_norm.bias", "norm.bias"),
        ("classifier.weight", "head.weight"),
        ("classifier.bias", "head.bias"),
    )
)
"""``VideoMAEForVideoClassification`` to :class:`~filmstrip.objectives.classification.Classification`."""


_AROUND = (r"decoder\..*", r"encoder_to_decoder\..*", r"mask_token", r"fc_norm\..*", r"classifier\..*")
"""Patterns of the names that a pretraining model or a classifier has around its encoder."""


def encoder_from(theirs: Mapping[str, Tensor]) -> Weights:
    """The encoder's part of a file that may hold an encoder, a pretraining model or a classifier.

    Raises:
        UserError: it holds anything else.
    """
    if any(name.startswith(_PREFIX) for name in theirs):
        inner = [name for name in theirs if name.startswith(_PREFIX)]
        check_names("this VideoMAE", theirs, inner, spare=_AROUND)
        theirs = {name.removeprefix(_PREFIX): theirs[name] for name in inner}
    return from_transformers(theirs, ENCODER)


def from_transformers(theirs: Mapping[str, Tensor], keys: KeyMap) -> Weights:
    """Our weights from theirs: names, fused queries, keys and values, and the patch convolution as a linear map.

    Raises:
        UserError: theirs have a name that ``keys`` do not know, or an attention that is not whole.
    """
    ours = keys.ours(_fuse(theirs))
    for name in ours:
        if name.endswith(_LINEAR):
            ours[name] = conv_to_linear(ours[name])
        elif name.endswith("mask_token"):
            ours[name] = ours[name].flatten()
    return ours


def to_transformers(ours: Mapping[str, Tensor], keys: KeyMap, patch_size: tuple[int, int, int]) -> Weights:
    """Their weights from ours, as ``save_pretrained`` of ``transformers`` names them."""
    theirs = keys.theirs(ours)
    for name in theirs:
        if name.endswith(_CONV):
            theirs[name] = linear_to_conv(theirs[name], patch_size)
        elif name.endswith("mask_token"):
            theirs[name] = theirs[name].view(1, 1, -1)
    return _unfuse(theirs)


def _fuse(theirs: Mapping[str, Tensor]) -> Weights:
    """One ``qkv`` weight for each attention.

    The two biases have had two spellings in published files: ``q_bias`` beside the layer, and ``query.bias`` in it.
    """
    fused = {}
    for name, tensor in theirs.items():
        stem, _, part = name.partition(".attention.attention.")
        prefix = f"{stem}.attention.attention."
        if part in ("query.weight", "key.weight", "value.weight"):
            if f"{prefix}qkv.weight" not in fused:
                fused[f"{prefix}qkv.weight"] = together(theirs, prefix, ".weight")
        elif part in ("query.bias", "value.bias"):
            fused[f"{prefix}{part[0]}_bias"] = tensor
        else:
            fused[name] = tensor
    return fused


def _unfuse(fused: Mapping[str, Tensor]) -> Weights:
    theirs = {}
    for name, tensor in fused.items():
        if name.endswith("qkv.weight"):
            for part, weight in zip(("query", "key", "value"), tensor.chunk(3)):
                theirs[name.replace("qkv", part)] = weight.contiguous()
        elif name.endswith(("q_bias", "v_bias")):
            theirs[name.replace("q_bias", "query.bias").replace("v_bias", "value.bias")] = tensor
        else:
            theirs[name] = tensor
    return theirs
