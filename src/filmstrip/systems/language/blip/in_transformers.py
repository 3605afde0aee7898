"""BLIP in the layout of ``transformers``: the names of its models for retrieval and for captions, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models import query_transformer as queries
from filmstrip.models.blip_layout import BLOCK
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import layers, pair

_OWN = (
    *pair("attention.self.qkv", "attention.qkv"),
    *pair("attention.output.dense", "attention.out"),
    *pair("attention.output.LayerNorm", "norm1"),
)
"""A layer's self-attention, once queries, keys and values are together."""
_SHARED = (
    *pair("crossattention.self.query", "cross_attention.q"),
    *pair("crossattention.self.kv", "cross_attention.kv"),
    *pair("crossattention.output.dense", "cross_attention.out"),
    *pair("crossattention.output.LayerNorm", "norm_cross"),
    *pair("intermediate.dense", "mlp.fc1"),
    *pair("output.dense", "mlp.fc2"),
    *pair("output.LayerNorm", "norm2"),
)
"""What encoder and decoder of texts share in a layer."""
_VISION = (
    ("vision_model.embeddings.class_embedding", "encoder.cls_token"),
    ("vision_model.embeddings.position_embedding", "encoder.pos_embed"),
    *pair("vision_model.embeddings.patch_embedding", "encoder.embed.proj"),
    *layers("vision_model.encoder.layers", "encoder.blocks", BLOCK),
    *pair("vision_model.post_layernorm", "encoder.norm"),
)
_NOT_HERE = (r"encoder\.embed\.normalise\..*", r"copies\..*", r"queue\..*", r"softness", r"log_scale")


def _text(prefix: str, own: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{prefix}.embeddings.word_embeddings.weight", "text.embed.weight"),
        (f"{prefix}.embeddings.position_embeddings.weight", "text.pos_embed"),
        *pair(f"{prefix}.embeddings.LayerNorm", "text.embed_norm"),
        *layers(f"{prefix}.encoder.layer", own, _OWN),
        *layers(f"{prefix}.encoder.layer", "text.blocks", _SHARED),
    )


RETRIEVAL = KeyMap(
    (
        *_VISION,
        *_text("text_encoder", "text.blocks"),
        *pair("vision_proj", "video_head"),
        *pair("text_proj", "text_head"),
        *pair("itm_head", "match_head"),
    ),
    spare=(r".*\.position_ids",),
    ours_alone=(*_NOT_HERE, r"words\..*", r"decoder_attention\..*"),
)
"""``BlipForImageTextRetrieval``, once queries, keys and values are together."""


def _writer(own: str) -> KeyMap:
    return KeyMap(
        (
            *_VISION,
            *_text("text_decoder.bert", own),
            *pair("text_decoder.cls.predictions.transform.dense", "words.fc"),
            *pair("text_decoder.cls.predictions.transform.LayerNorm", "words.norm"),
            ("text_decoder.cls.predictions.bias", "words.bias"),
        ),
        spare=(r".*\.position_ids", r"text_decoder\.cls\.predictions\.decoder\..*"),
        ours_alone=(*_NOT_HERE, r"(?:video|text|match)_head\..*")
        + (() if own == "text.blocks" else (r"text\.blocks\.\d+\.(?:attention|norm1)\..*",)),
    )


WRITERS = {False: _writer("decoder_attention"), True: _writer("text.blocks")}
"""``BlipForConditionalGeneration``, by whether the decoder's self-attention is the encoder's too."""
_PATCHES = "encoder.embed.proj.weight"


class HubBlip(NamedTuple):
    """What a ``config.json`` says of a BLIP."""

    vision: ImageTowerArchitecture
    text: TextArchitecture
    embed_dim: int
    """Dimension of the vectors that are contrasted."""
    starts: tuple[int, int]
    """Ids that begin a written and a matched caption."""


def blip_in_hub(config: Mapping[str, Any], statistics: Mapping[str, Any], source: str) -> HubBlip:
    """The sizes of a BLIP that a ``config.json`` describes; ``statistics`` are those of pixels.

    Raises:
        UserError: it is of another kind, or has another activation.
    """
    if config.get("model_type") != "blip":
        raise UserError(f"{source} is a {config.get('model_type')}, and no BLIP")
    text, vision = config.get("text_config", {}), config.get("vision_config", {})
    if acts := {part.get("hidden_act", "gelu") for part in (text, vision)} - {"gelu"}:
        raise UserError(f"{source} has the activation {acts.pop()!r}; BLIP's known here is 'gelu'")
    width, patch = vision.get("hidden_size", 768), vision.get("patch_size", 16)
    image = ImageTowerArchitecture(
        width=width,
        depth=vision.get("num_hidden_layers", 12),
        num_heads=vision.get("num_attention_heads", 12),
        mlp_ratio=vision.get("intermediate_size", 3072) / width,
        norm_eps=vision.get("layer_norm_eps", 1e-5),
        num_frames=1,
        size=vision.get("image_size", 384),
        patch_size=patch,
        pool="class",
        **statistics,
    )
    size = text.get("vocab_size", 30_524)
    words = TextArchitecture(
        width=text.get("hidden_size", 768),
        depth=text.get("num_hidden_layers", 12),
        num_heads=text.get("num_attention_heads", 8),
        mlp_ratio=text.get("intermediate_size", 3072) / text.get("hidden_size", 768),
        norm="post",
        norm_eps=text.get("layer_norm_eps", 1e-12),
        dropout=text.get("hidden_dropout_prob", 0.0),
        vocab_size=size,
        max_length=text.get("max_position_embeddings", 512),
    )
    begins = text.get("bos_token_id", 30_522)
    # The published tokenizer adds the encoder's start behind the decoder's; no configuration names it.
    return HubBlip(image, words, config.get("image_text_hidden_size", 256), (begins, min(begins + 1, size - 1)))


def config_in_hub(found: HubBlip, model: str) -> dict[str, Any]:
    """The inverse of :func:`blip_in_hub`: the ``config.json`` of a ``model``, without ids that a tokenizer says.

    Raises:
        UserError: ``transformers`` has no BLIP like this.
    """
    vision, text, begins = found.vision, found.text, found.starts
    kept = (vision.pool, vision.norm_before, vision.final_norm, vision.patch_bias, vision.gelu, text.gelu)
    if kept != ("class", False, True, True, "exact", "exact") or not isinstance(vision.patch_size, int):
        raise UserError(
            "transformers has BLIP with a plain image transformer of square patches of one frame, a class token, a "
            "last norm and exact GELUs, and this one differs"
        )
    if begins[1] != min(begins[0] + 1, text.vocab_size - 1):
        raise UserError(
            f"captions that are written begin with id {begins[0]}, and those that are matched with {begins[1]}: "
            "transformers has the next one there"
        )
    return {
        "model_type": "blip",
        "architectures": [model],
        "image_text_hidden_size": found.embed_dim,
        "vision_config": {
            "model_type": "blip_vision_model",
            "hidden_size": vision.width,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.num_heads,
            "intermediate_size": round(vision.width * vision.mlp_ratio),
            "layer_norm_eps": vision.norm_eps,
            "image_size": vision.size,
            "patch_size": vision.patch_size,
            "hidden_act": "gelu",
        },
        "text_config": {
            "model_type": "blip_text_model",
            "hidden_size": text.width,
            "num_hidden_layers": text.depth,
            "num_attention_heads": text.num_heads,
            "intermediate_size": round(text.width * text.mlp_ratio),
            "layer_norm_eps": text.norm_eps,
            "hidden_dropout_prob": text.dropout,
            "attention_probs_dropout_prob": 0.0,
            "hidden_act": "gelu",
            "encoder_hidden_size": vision.width,
            "max_position_embeddings": text.max_length,
            "vocab_size": text.vocab_size,
            "bos_token_id": begins[0],
        },
    }


def from_blip(theirs: Mapping[str, Tensor], *, shared: bool = False) -> Weights:
    """Weights of a :class:`Blip` from those of one of the two models; ``shared`` self-attention is the encoder's.

    Raises:
        UserError: it is neither, or has a name that no such model has.
    """
    reads, writes = (any(name.startswith(part) for name in theirs) for part in ("text_encoder.", "text_decoder."))
    if reads == writes:
        raise UserError(
            "this is no BLIP for retrieval (text_encoder) or for captions (text_decoder), which can be loaded here"
        )
    ours = (RETRIEVAL if reads else WRITERS[shared]).ours(queries.fused(theirs))
    ours["encoder.cls_token"] = ours["encoder.cls_token"].flatten()
    ours["encoder.pos_embed"] = ours["encoder.pos_embed"][0]
    ours[_PATCHES] = conv_to_linear(ours[_PATCHES][:, :, None])
    return ours


def to_retrieval(ours: Mapping[str, Tensor], patch_size: int) -> Weights:
    """The state of a ``BlipForImageTextRetrieval``; what it has no place for is left out."""
    return _apart(RETRIEVAL.theirs(_shaped(ours, patch_size)))


def to_captioner(ours: Mapping[str, Tensor], patch_size: int) -> Weights:
    """The state of a ``BlipForConditionalGeneration``; what it has no place for is left out."""
    shared = not any(name.startswith("decoder_attention.") for name in ours)
    theirs = _apart(WRITERS[shared].theirs(_shaped(ours, patch_size)))
    head = "text_decoder.cls.predictions"
    theirs[f"{head}.decoder.weight"] = theirs["text_decoder.bert.embeddings.word_embeddings.weight"]
    theirs[f"{head}.decoder.bias"] = theirs[f"{head}.bias"]
    return theirs


def _apart(theirs: Weights) -> Weights:
    """With queries, keys and values apart in texts; in images they are in one there too."""
    text = {name: tensor for name, tensor in theirs.items() if name.startswith("text_")}
    return {name: tensor for name, tensor in theirs.items() if name not in text} | queries.unfused(text)


def _shaped(ours: Mapping[str, Tensor], patch_size: int) -> Weights:
    return {
        **ours,
        "encoder.cls_token": ours["encoder.cls_token"].view(1, 1, -1),
        "encoder.pos_embed": ours["encoder.pos_embed"][None],
        _PATCHES: linear_to_conv(ours[_PATCHES], (1, patch_size, patch_size))[:, :, 0].contiguous(),
    }
