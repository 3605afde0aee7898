"""Our shared transformers as models of ``transformers`` describe them: networks from a ``config.json``, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.models.in_transformers import IMAGE, MAE, TIMESFORMER, VIDEOMAE, VIVIT, TransformersLayout
from filmstrip.models.video_transformer import (
    DIVIDED,
    JOINT,
    FrameTransformer,
    SpaceTimeTransformer,
    TransformerArchitecture,
)
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.weights.keymap import check_names

LAYOUTS: dict[str, TransformersLayout] = {
    "videomae": VIDEOMAE,
    "vit": IMAGE,
    "vit_mae": MAE,
    "timesformer": TIMESFORMER,
    "vivit": VIVIT,
}
"""The families that become our own networks, by ``model_type``."""
_PIXELS = (r"embed\.normalise\.(?:mean|std)",)
"""Of our names, those that a file has not: its preprocessor_config.json says them."""
_GELU = {"gelu": "exact", "gelu_fast": "tanh", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

OwnEncoder = ViT | FrameTransformer | SpaceTimeTransformer


def encoder_from_hub(
    config: dict[str, Any], theirs: Mapping[str, Tensor], statistics: dict[str, Any], source: str
) -> OwnEncoder:
    """The encoder of a folder: its ``config.json``, its tensors, and the ``mean`` and ``std`` of its pixels.

    Raises:
        UserError: the tensors are others than the configuration asks for, or it asks for what is not known here.
    """
    kind = config["model_type"]
    try:
        weights = LAYOUTS[kind].encoder_from(theirs)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    encoder = _build(kind, config, statistics, "norm.weight" in weights, source)
    check_names(f"{source}, by our names and its config.json,", weights, encoder.state_dict(), optional=_PIXELS)
    try:
        encoder.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"the weights of {source} do not fit its config.json: {error}") from None
    return encoder.eval()


def sizes_in_hub(config: dict[str, Any]) -> dict[str, Any]:
    """The sizes of an encoder that becomes our own network, from its ``config.json`` alone; none of other kinds.

    ``width``, ``depth``, ``num_heads``, ``patch_size`` (height and width), ``mlp_ratio``; of a video's network also
    ``tubelet`` (frames of a token), ``num_frames`` and ``size`` of its clips.
    """
    kind = config.get("model_type")
    if kind not in LAYOUTS:
        return {}
    sizes = _sizes(kind, config)
    tubelet, patch, _ = sizes.pop("patch_size")
    if _sees_images(kind, config):
        return {key: sizes[key] for key in ("width", "depth", "num_heads", "mlp_ratio")} | {"patch_size": patch}
    return {**sizes, "patch_size": patch, "tubelet": tubelet}


def _sizes(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a network, under our names; what a config.json leaves out is as in ``transformers``."""
    width, patch = config.get("hidden_size", 768), config.get("patch_size", 16)
    cube = (1, patch, patch)
    if kind == "videomae":
        cube = (config.get("tubelet_size", 2), patch, patch)
    elif kind == "vivit":
        cube = tuple(config.get("tubelet_size", (2, 16, 16)))
    return {
        "width": width,
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "num_frames": config.get("num_frames", {"videomae": 16, "vivit": 32}.get(kind, 8)),
        "size": config.get("image_size", 224),
        "patch_size": cube,
        "mlp_ratio": config.get("intermediate_size", 4 * width) / width,
    }


def _sees_images(kind: str, config: dict[str, Any]) -> bool:
    """Whether a network looks at each frame by itself."""
    return kind in ("vit", "vit_mae") or (kind == "timesformer" and config.get("attention_type") == "space_only")


def architecture_in_hub(
    config: dict[str, Any], statistics: dict[str, Any], source: str
) -> ViTArchitecture | TransformerArchitecture:
    """The architecture of an image transformer or of VideoMAE's encoder, from its ``config.json``.

    Raises:
        UserError: it is of another kind, or has an activation that is not known here.
    """
    kind = config.get("model_type", "model of unknown type")
    if kind != "videomae" and not _sees_images(kind, config):
        raise UserError(f"{source} is a {kind}: give a videomae, vit or vit_mae, or a run folder")
    return _architecture(kind, config, statistics, source)


def _architecture(
    kind: str, config: dict[str, Any], statistics: dict[str, Any], source: str
) -> ViTArchitecture | TransformerArchitecture:
    sizes = {**_sizes(kind, config), **statistics}
    if kind == "videomae":
        return ViTArchitecture(**sizes, norm_eps=config.get("layer_norm_eps", 1e-12))
    if (act := config.get("hidden_act", "gelu_fast" if kind == "vivit" else "gelu")) not in _GELU:
        raise UserError(f"{source} has the activation {act!r}; those known here are: {', '.join(_GELU)}")
    norm_eps = config.get("layer_norm_eps", 1e-12 if kind in ("vit", "vit_mae") else 1e-6)
    return TransformerArchitecture(**sizes, norm_eps=norm_eps, gelu=_GELU[act])


def _build(
    kind: str, config: dict[str, Any], statistics: dict[str, Any], final_norm: bool, source: str
) -> OwnEncoder:
    architecture = _architecture(kind, config, statistics, source)
    if isinstance(architecture, ViTArchitecture):
        return ViT(architecture, final_norm=final_norm)
    if _sees_images(kind, config):
        return FrameTransformer(architecture)
    attention = config.get("attention_type", "divided_space_time")
    divided = kind == "timesformer" and attention == "divided_space_time"
    return SpaceTimeTransformer(DIVIDED if divided else JOINT, architecture, time_positions=kind == "timesformer")


def described_for_hub(encoder: nn.Module) -> tuple[dict[str, Any], TransformersLayout]:
    """The inverse of :func:`encoder_from_hub`: the ``config.json`` of an encoder, and its layout.

    Raises:
        UserError: ``transformers`` has no such network.
    """
    kind, own = _kind_of(encoder)
    block, (tubelet, patch, _) = encoder.blocks[0], encoder.patch_size
    config = {
        "model_type": kind,
        "image_size": encoder.grid.h * patch,
        "num_frames": encoder.grid.t * tubelet,
        "num_channels": 3,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": block.attention.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "layer_norm_eps": block.norm1.eps,
        "hidden_act": "gelu" if block.mlp.act.approximate == "none" else "gelu_fast",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **own,
    }
    return config, LAYOUTS[kind]


def _kind_of(encoder: nn.Module) -> tuple[str, dict[str, Any]]:
    """The family of an encoder, and what its configuration says that no other does."""
    if isinstance(encoder, ViT):
        if encoder.position_kind != "table":
            raise UserError(
                "transformers' VideoMAE has positions of the flattened grid, and this network those of its axes: "
                "export it in another format"
            )
        tubelet, patch, _ = encoder.patch_size
        pooled = isinstance(encoder.norm, nn.Identity)
        return "videomae", {
            "patch_size": patch,
            "tubelet_size": tubelet,
            "use_mean_pooling": pooled,
            "qkv_bias": True,
        }
    if isinstance(encoder, SpaceTimeTransformer) and encoder.kind in (DIVIDED, JOINT):
        if encoder.time_pos_embed is None and encoder.kind == JOINT:
            return "vivit", {"tubelet_size": list(encoder.patch_size)}
        attention = "divided_space_time" if encoder.kind == DIVIDED else "joint_space_time"
        return "timesformer", {"patch_size": encoder.patch_size[1], "attention_type": attention}
    raise UserError(
        f"transformers has no network like this {type(encoder).__name__}: there are VideoMAE's ViT, TimeSformer of "
        "divided or joint attention, and ViViT of joint attention"
    )
