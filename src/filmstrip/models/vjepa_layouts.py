"""Layouts of released weights: the state of a published training, ``VJEPA2Model`` of ``transformers``, and V-JEPA
2.1's distilled networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.protocols import Layout
from filmstrip.weights.keymap import Weights
from filmstrip.weights.layers import fuse, unfuse

_PROJECTION = "embed.proj.weight"
_PARTS = ("encoder", "predictor", "target_encoder")
_ROLES = ((r"^student\.", "encoder."), (r"^teacher\.", "target_encoder."))
_TRAINING = (
    *_ROLES,
    (r"\.embed\.", ".patch_embed."),
    (r"\.image_embed\.", ".patch_embed_img."),
    (r"\.image_vector$", ".img_mod_embed"),
    (r"\.video_vector$", ".video_mod_embed"),
    (r"\.level_norms\.", ".norms_block."),
    (r"^predictor\.project\.", "predictor.predictor_embed."),
    (r"^predictor\.(blocks|norm)\.", r"predictor.predictor_\1."),
    (r"^predictor\.head\.", "predictor.predictor_proj."),
    (r"^predictor\.context_head\.", "predictor.predictor_proj_context."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
)
_TRANSFORMERS = (
    *_ROLES,
    (r"\.embed\.", ".embeddings.patch_embeddings."),
    (r"^predictor\.project\.", "predictor.embeddings.predictor_embeddings."),
    (r"^predictor\.mask_tokens\.", "predictor.embeddings.mask_tokens."),
    (r"^predictor\.head\.", "predictor.proj."),
    (r"\.blocks\.", ".layer."),
    (r"^(\w+)\.norm\.", r"\1.layernorm."),
    (r"\.attention\.out\.", ".attention.proj."),
)
_SHARE = "context_share"
_TOKENS = "predictor.embeddings.mask_tokens"


def layouts(patch_size: tuple[int, int, int], levels: int = 1) -> tuple[Layout, ...]:
    """All layouts of a network with tubelets of that size and so many layers of features."""
    both = {"to_ours": _as_linear, "to_theirs": partial(_as_convolution, patch_size)}
    last = rf"\1.norms_block.{levels - 1}." if levels > 1 else r"\1.norm."
    training = (*_TRAINING, (r"^((?:target_)?encoder)\.norm\.", last))
    distilled = Layout(
        name="distilled",
        rules=training,
        spare=(r"predictor\..*",),  # of another width: it predicts the features of the network that was distilled
        optional=(r"predictor\..*", _SHARE),
        unpack=_distilled,
        **both,
    )
    return (
        Layout(
            name="training",
            rules=training,
            # Fixed sine-cosine vectors; V-JEPA 2's files have them too and do not use them.
            spare=(r"(?:target_)?encoder\.pos_embed", r"predictor\.predictor_pos_embed"),
            optional=(_SHARE,),
            unpack=_parts_together,
            pack=_parts_apart,
            **both,
        ),
        Layout(
            name="transformers",
            rules=_TRANSFORMERS,
            spare=(r"pooler\..*", r"classifier\..*"),
            after=(r"predictor\..*", r"target_encoder\..*"),
            unpack=_from_transformers,
            pack=_to_transformers,
            **both,
        ),
        distilled,
    )


def ac_layouts(patch_size: tuple[int, int, int], levels: int = 1) -> tuple[Layout, ...]:
    """Layouts of a frozen encoder with an action-conditioned predictor, or of an encoder alone.

    Of a training's file the teacher is read, where there is one; a predictor that knows no actions is left out.
    """
    own = (
        (r"^predictor\.action\.", "predictor.action_encoder."),
        (r"^predictor\.state\.", "predictor.state_encoder."),
        (r"^predictor\.extrinsics\.", "predictor.extrinsics_encoder."),
    )
    training, transformers, _ = layouts(patch_size, levels)
    return (
        replace(
            training,
            rules=(*own, *training.rules),
            # Released with a layer for the camera's pose, which its training did not use.
            spare=(*training.spare, r"predictor\.extrinsics_encoder\..*"),
            after=(r"predictor\..*",),
            optional=(),
            unpack=_with_actions,
        ),
        transformers,
    )


def _with_actions(file: Mapping[str, Any]) -> Mapping[str, Any]:
    encoder = next((file[key] for key in ("target_encoder", "ema_encoder", "encoder") if file.get(key)), None)
    if not isinstance(encoder, Mapping):
        return file
    predictor = file.get("predictor", {})
    acts = any(name.endswith("action_encoder.weight") for name in predictor)
    together = _parts_together({"encoder": encoder, "predictor": predictor if acts else {}})
    return {name: tensor for name, tensor in together.items() if not name.startswith("target_encoder.")}


def _distilled(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """The encoder of a distilled network, as student and as teacher; its predictor is left out."""
    encoder = file.get("ema_encoder")
    return _parts_together({"encoder": encoder, "predictor": {}}) if isinstance(encoder, Mapping) else {}


def _parts_together(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """One state of the parts of a training's file. One without a teacher's has the encoder for it."""
    if not isinstance(file.get("encoder"), Mapping) or not isinstance(file.get("predictor"), Mapping):
        return file
    states = {"target_encoder": file["encoder"], **{part: file[part] for part in _PARTS if part in file}}
    return {
        f"{part}.{re.sub(r'^(?:module[.])?(?:backbone[.])?', '', name)}": tensor
        for part, state in states.items()
        for name, tensor in state.items()
    }


def _parts_apart(state: Mapping[str, Tensor]) -> dict[str, Weights]:
    file: dict[str, Weights] = {part: {} for part in _PARTS}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part in file:  # a count of steps is none
            file[part][f"module.backbone.{rest}"] = tensor
    return file


def _from_transformers(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """One matrix of queries, keys and values, a name for each mask token, and the encoder as teacher."""
    state = fuse({name.removeprefix("vjepa2."): tensor for name, tensor in file.items()})
    if _TOKENS in state:
        state |= {f"{_TOKENS}.{i}": token for i, token in enumerate(state.pop(_TOKENS))}
    return state | {f"target_{name}": tensor for name, tensor in state.items() if name.startswith("encoder.")}


def _to_transformers(state: Mapping[str, Tensor]) -> Weights:
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("target_encoder.")}
    tokens = [kept.pop(name) for name in list(kept) if name.startswith(f"{_TOKENS}.")]
    return unfuse(kept | ({_TOKENS: torch.stack(tokens)} if tokens else {}))  # an encoder alone has none


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """Tubelets are projected by a convolution there."""
    return conv_to_linear(tensor) if name.endswith(_PROJECTION) else tensor


def _as_convolution(patch_size: tuple[int, int, int], name: str, tensor: Tensor) -> Tensor:
    """And back; an image's patches are one frame deep."""
    if not name.endswith(_PROJECTION):
        return tensor
    return linear_to_conv(tensor, (1, *patch_size[1:]) if "image_embed" in name else patch_size)
