"""V-JEPA 2 with its attentive head as ``transformers`` has it (``VJEPA2ForVideoClassification``), both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.models.vjepa import VJEPAArchitecture, VJEPAEncoder
from filmstrip.nn.attentive_pooling import AttentivePooling
from filmstrip.weights.keymap import KeyMap, Weights
from filmstrip.weights.layers import fuse, layers, pair, unfuse
from filmstrip.weights.released import from_published, to_published

CLASSIFIER = "VJEPA2ForVideoClassification"
"""Name of the class in ``transformers``."""
NORM_EPS = 1e-6
_QKV, _KV = ("q_proj", "k_proj", "v_proj"), ("k_proj", "v_proj")
_CROSS = "pooler.cross_attention_layer"
_MLP = (*pair("mlp.fc1", "mlp.fc1"), *pair("mlp.fc2", "mlp.fc2"))
_NORMS = (*pair("layer_norm1", "norm1"), *pair("layer_norm2", "norm2"))
_BLOCK = (*pair("self_attn.qkv", "attention.qkv"), *pair("self_attn.out_proj", "attention.out"), *_NORMS, *_MLP)
_HEAD = KeyMap(
    (
        ("pooler.query_tokens", "query"),
        *pair(f"{_CROSS}.cross_attn.q_proj", "attention.q"),
        *pair(f"{_CROSS}.cross_attn.kv", "attention.kv"),
        *((f"{_CROSS}.{theirs}", ours) for theirs, ours in (*_NORMS, *_MLP)),
        *layers("pooler.self_attention_layers", "blocks", _BLOCK),
        *pair("classifier", "head"),
    )
)


class _Encoder(nn.Module):
    """What reads the weights of an encoder alone: by the name ``encoder``."""

    def __init__(self, encoder: VJEPAEncoder) -> None:
        super().__init__()
        self.encoder = encoder


def architecture_of(config: Mapping[str, Any], source: str) -> VJEPAArchitecture:
    """The encoder's architecture from a ``config.json``.

    Raises:
        UserError: it has settings that no released model has and that are not known here.
    """
    usual = {"hidden_act": "gelu", "qkv_bias": True, "layer_norm_eps": NORM_EPS}
    if unlike := [f"{name} {config[name]}" for name, value in usual.items() if config.get(name, value) != value]:
        raise UserError(f"{source} is a V-JEPA 2 with {', '.join(unlike)}: none such is known here")
    patch = config.get("patch_size", 16)
    return VJEPAArchitecture(
        width=config.get("hidden_size", 1024),
        depth=config.get("num_hidden_layers", 24),
        num_heads=config.get("num_attention_heads", 16),
        mlp_ratio=config.get("mlp_ratio", 4.0),
        num_frames=config.get("frames_per_clip", 64),
        size=config.get("crop_size", 256),
        patch_size=(config.get("tubelet_size", 2), patch, patch),
    )


def pooling_of(config: Mapping[str, Any]) -> dict[str, int] | None:
    """Number of blocks and of heads of the pooling of a ``config.json``; none if that is of no classifier."""
    if CLASSIFIER not in (config.get("architectures") or ()):
        return None
    return {"depth": config.get("num_pooler_layers", 3), "num_heads": config.get("num_attention_heads", 16)}


def attentive_head(width: int, num_classes: int, *, depth: int, num_heads: int) -> AttentivePooling:
    """The head of a released model, with fresh weights."""
    return AttentivePooling(width, num_classes, depth=depth, num_heads=num_heads, projects=False, norm_eps=NORM_EPS)


def classifier_from_hub(
    config: Mapping[str, Any],
    theirs: Mapping[str, Tensor],
    statistics: Mapping[str, Sequence[float]],
    num_classes: int,
    source: str,
) -> tuple[VJEPAEncoder, AttentivePooling]:
    """The encoder and the head of a folder: its ``config.json``, its tensors, and the ``mean`` and ``std`` of pixels.

    Raises:
        UserError: the tensors are others than the configuration asks for.
    """
    encoder = VJEPAEncoder(architecture_of(config, source))
    pooling = pooling_of(config)
    assert pooling is not None, "asked for before"
    head = attentive_head(encoder.width, num_classes, **pooling)
    around = {name: tensor for name, tensor in theirs.items() if name.startswith(("pooler.", "classifier."))}
    try:
        ours = from_published(
            {name: theirs[name] for name in theirs if name not in around}, _Encoder(encoder), head=False
        )
        encoder.load_state_dict(
            {name.removeprefix("encoder."): tensor for name, tensor in ours.items()}, strict=False
        )
        head.load_state_dict(_head_from(around))
    except (UserError, RuntimeError) as error:
        raise UserError(f"the weights of {source} do not fit its config.json: {error}") from None
    for name, values in statistics.items():
        encoder.embed.normalise.get_buffer(name).copy_(torch.tensor(values))
    return encoder.eval(), head.eval()


def classifier_for_hub(encoder: nn.Module, head: nn.Module) -> tuple[dict[str, Any], Weights]:
    """The inverse: the ``config.json`` of an encoder and its head, and their weights by the names there.

    A classifier does without the predictor of pretraining: that of the configuration has no layers, and no weights.

    Raises:
        UserError: ``transformers`` has no such network.
    """
    first = encoder.blocks[0] if isinstance(encoder, VJEPAEncoder) else None
    plain = first is not None and encoder.positions.kind == "rotary" and not encoder.has_images
    if not plain or not isinstance(head, AttentivePooling) or not isinstance(head.attention.out, nn.Identity):
        raise UserError(
            f"transformers has no network like this {type(encoder).__name__} with a {type(head).__name__}: there is "
            "V-JEPA 2 with its own pooling"
        )
    tubelet, patch, _ = encoder.patch_size
    config = {
        "model_type": "vjepa2",
        "architectures": [CLASSIFIER],
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": first.attention.num_heads,
        "mlp_ratio": first.mlp.fc1.out_features / encoder.width,
        "frames_per_clip": encoder.grid.t * tubelet,
        "crop_size": encoder.grid.h * patch,
        "patch_size": patch,
        "tubelet_size": tubelet,
        "layer_norm_eps": first.norm1.eps,
        "num_pooler_layers": len(head.blocks),
        "pred_num_hidden_layers": 0,
    }
    if head.attention.num_heads != config["num_attention_heads"]:
        raise UserError(
            "transformers' V-JEPA 2 pools with as many heads as its encoder has: set objective.pooling_heads"
        )
    weights = {f"vjepa2.{name}": x for name, x in to_published(_Encoder(encoder), "transformers").items()}
    return config, weights | _head_to(head.state_dict())


def _head_from(theirs: Mapping[str, Tensor]) -> Weights:
    crossed = {name: x for name, x in theirs.items() if name.startswith(_CROSS)}
    others = {name: x for name, x in theirs.items() if name not in crossed}
    fused = fuse(crossed, _KV, "kv") | fuse(others, _QKV)
    return {name: x[0] if name == "query" else x for name, x in _HEAD.ours(fused).items()}


def _head_to(ours: Mapping[str, Tensor]) -> Weights:
    theirs = {name: x[None] if name == "pooler.query_tokens" else x for name, x in _HEAD.theirs(ours).items()}
    return unfuse(unfuse(theirs, _QKV), _KV, "kv")
