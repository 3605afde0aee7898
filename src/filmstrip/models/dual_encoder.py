"""SigLIP, SigLIP 2 and CLIP of ``transformers`` as ours: layouts of their weights, sizes from a ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.nn.mlp import GELU
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.protocols import Layout
from filmstrip.weights.layers import fuse, unfuse

CLIP_PIXELS: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
SIGLIP_PIXELS: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_PARTS = ("q_proj", "k_proj", "v_proj")
_PROJECTION = "embed.proj.weight"
_POOL = "encoder.pool.attention."
_RULES = (
    (r"^encoder\.embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^encoder\.pos_embed$", "vision_model.embeddings.position_embedding.weight"),
    (r"^encoder\.norm_before\.", "vision_model.pre_layrnorm."),
    (r"^encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^encoder\.pool\.attention\.(?:q|kv)\.", "vision_model.head.attention.in_proj_"),
    (r"^encoder\.pool\.attention\.out\.", "vision_model.head.attention.out_proj."),
    (r"^encoder\.pool\.queries$", "vision_model.head.probe"),
    (r"^encoder\.pool\.mlp_norm\.", "vision_model.head.layernorm."),
    (r"^encoder\.pool\.", "vision_model.head."),
    (r"^encoder\.blocks\.", "vision_model.encoder.layers."),
    (r"^text\.embed\.", "text_model.embeddings.token_embedding."),
    (r"^text\.pos_embed$", "text_model.embeddings.position_embedding.weight"),
    (r"^text\.blocks\.", "text_model.encoder.layers."),
    (r"^text\.norm\.", "text_model.final_layer_norm."),
    (r"\.(\d+)\.norm([12])\.", r".\1.layer_norm\2."),
    (r"(layers\.\d+)\.attention\.out\.", r"\1.self_attn.out_proj."),
    (r"(layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"^log_scale$", "logit_scale"),
    (r"^bias$", "logit_bias"),
)
_SIGLIP = ((r"^text_head\.", "text_model.head."),)
_HEADS = {
    "siglip": _SIGLIP,
    "siglip2": _SIGLIP,
    "clip": ((r"^text_head\.", "text_projection."), (r"^video_head\.", "visual_projection.")),
}
_GELU: dict[str, GELU] = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "quick_gelu": "quick"}


def layouts_of(kind: str, patch_size: tuple[int, int, int]) -> tuple[Layout, ...]:
    """The layout of a two-tower model of ``transformers`` with patches of that size: ``siglip`` (also SigLIP 2 for
    frames of one size), ``siglip2`` (for frames of any, NaFlex) or ``clip``."""
    return (
        Layout(
            name=kind,
            rules=(*_RULES, *_HEADS[kind]),
            after=(r"text_model\..*", r"logit_\w+", r"\w+_projection\..*"),
            spare=(r".*\.position_ids",),
            unpack=partial(fuse, parts=_PARTS),
            pack=partial(unfuse, parts=_PARTS),
            to_ours=_to_ours,
            to_theirs=partial(_to_theirs, kind, patch_size),
        ),
    )


def _to_ours(name: str, tensor: Tensor) -> Tensor:
    """Patches are projected by a convolution there, but of SigLIP 2's NaFlex; the pool's queries, keys and values are
    in one."""
    if name.endswith(_PROJECTION):
        return tensor if tensor.ndim == 2 else conv_to_linear(tensor[:, :, None])
    if name.startswith((f"{_POOL}q.", f"{_POOL}kv.")):
        width = len(tensor) // 3
        return tensor[:width] if name.startswith(f"{_POOL}q.") else tensor[width:]
    return tensor


def _to_theirs(kind: str, patch_size: tuple[int, int, int], name: str, tensor: Tensor) -> Tensor:
    if name.endswith(_PROJECTION) and kind != "siglip2":
        return linear_to_conv(tensor, patch_size)[:, :, 0].contiguous()
    if name == "encoder.pool.queries":
        return tensor[None]
    return tensor[0] if kind == "clip" and name == "log_scale" else tensor


def has_two_towers(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` describes a model of images and texts that is known here."""
    return config.get("model_type") in _HEADS


def towers_in_hub(
    config: Mapping[str, Any], statistics: Mapping[str, Any], source: str
) -> tuple[ImageTowerArchitecture, TextArchitecture]:
    """The two towers that a ``config.json`` of a SigLIP (2) or CLIP describes; ``statistics`` are those of pixels.

    Frames are the largest square of whole patches: what is left beside the last patch is not read. Of NaFlex they are
    the square whose positions are learned.

    Raises:
        UserError: it is of another kind, or of a form that is not known here.
    """
    kind = config.get("model_type")
    if kind not in _HEADS:
        raise UserError(f"{source} is a {kind}, and no two-tower model that is known here: {', '.join(_HEADS)}")
    text, vision = config.get("text_config", {}), config.get("vision_config", {})
    clip = kind == "clip"
    wide = {"width": 512 if clip else 768, "depth": 12, "num_heads": 8 if clip else 12}
    patch = vision.get("patch_size", 32 if clip else 16)
    size = vision.get("image_size", 224) // patch * patch
    if kind == "siglip2":
        size = math.isqrt(vision.get("num_patches", 256)) * patch
    image = ImageTowerArchitecture(
        **_sizes(vision, {"width": 768, "depth": 12, "num_heads": 12, "hidden": 3072}, kind, source),
        num_frames=1,
        size=size,
        patch_size=patch,
        pool="class" if clip else "probe",
        norm_before=clip,
        patch_bias=not clip,
        **statistics,
    )
    words = TextArchitecture(
        **_sizes(text, {**wide, "hidden": 2048 if clip else 3072}, kind, source),
        vocab_size=text.get("vocab_size", 49408 if clip else 32000),
        max_length=text.get("max_position_embeddings", 77 if clip else 64),
    )
    return image, words


def _sizes(tower: Mapping[str, Any], usual: Mapping[str, int], kind: str, source: str) -> dict[str, Any]:
    """Sizes that both towers have; a ``config.json`` leaves out those that are ``usual``."""
    width = tower.get("hidden_size", usual["width"])
    act = tower.get("hidden_act", "quick_gelu" if kind == "clip" else "gelu_pytorch_tanh")
    if act not in _GELU:
        raise UserError(f"{source} has the activation {act!r}; those known here are: {', '.join(_GELU)}")
    return {
        "width": width,
        "depth": tower.get("num_hidden_layers", usual["depth"]),
        "num_heads": tower.get("num_attention_heads", usual["num_heads"]),
        "mlp_ratio": tower.get("intermediate_size", usual["hidden"]) / width,
        "norm_eps": tower.get("layer_norm_eps", 1e-5 if kind == "clip" else 1e-6),
        "gelu": _GELU[act],
    }
