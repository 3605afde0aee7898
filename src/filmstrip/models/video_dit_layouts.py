"""Published layouts of the weights of a :class:`~filmstrip.models.video_dit.VideoDiT`: those of ``diffusers``'
``LatteTransformer3DModel``, ``WanTransformer3DModel`` and ``LTXVideoTransformer3DModel``, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.video_dit import VideoDiT, VideoDiTArchitecture
from filmstrip.nn.lora import adapted_layers
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.protocols import Grid, Pipeline, Rules
from filmstrip.weights.keymap import Weights, check_names, renamed

LATTE, WAN, LTX = "LatteTransformer3DModel", "WanTransformer3DModel", "LTXVideoTransformer3DModel"
_EPS = 1e-6
_PIXELS = 8  # height and width of a latent of Stable Diffusion's autoencoder
_TEXT_LENGTHS = {LATTE: 120, WAN: 512, LTX: 128}
_BLOCK: Rules = (
    (r"\.attention\.out\.", ".attn1.to_out.0."),
    (r"\.attention\.([qk]_norm|qkv)\.", r".attn1.\1."),
    (r"\.context_attention\.out\.", ".attn2.to_out.0."),
    (r"\.context_attention\.", ".attn2."),
    (r"\.([qk])_norm\.", r".norm_\1."),
    (r"\.mlp\.fc1\.", ".FF.net.0.proj."),
    (r"\.mlp\.fc2\.", ".FF.net.2."),
    (r"\.context_norm\.", ".norm2."),
    (r"\.modulation\.table$", ".scale_shift_table"),
    (r"^out_modulation\.table$", "scale_shift_table"),
    (r"^out\.", "proj_out."),
)
_LATTE: Rules = (
    *_BLOCK,
    (r"\.FF\.", ".ff."),
    (r"^embed\.", "pos_embed.proj."),
    (r"^time\.fc", "adaln_single.emb.timestep_embedder.linear_"),
    (r"^shared\.", "adaln_single.linear."),
    (r"^context\.fc", "caption_projection.linear_"),
)
_WAN: Rules = (
    *_BLOCK,
    (r"\.FF\.", ".ffn."),
    (r"^embed\.", "patch_embedding."),
    (r"^time\.fc", "condition_embedder.time_embedder.linear_"),
    (r"^shared\.", "condition_embedder.time_proj."),
    (r"^context\.fc", "condition_embedder.text_embedder.linear_"),
)
_LTX: Rules = (
    *_BLOCK,
    (r"\.FF\.", ".ff."),
    (r"^blocks\.", "transformer_blocks."),
    (r"^embed\.", "proj_in."),
    (r"^time\.fc", "time_embed.emb.timestep_embedder.linear_"),
    (r"^shared\.", "time_embed.linear."),
    (r"^context\.fc", "caption_projection.linear_"),
)
_RULES = {LATTE: _LATTE, WAN: _WAN, LTX: _LTX}
_FUSED = {"qkv": ("to_q", "to_k", "to_v"), "kv": ("to_k", "to_v"), "q": ("to_q",)}


def layout_of(config: VideoDiTArchitecture) -> str:
    """The network of ``diffusers`` as which one is laid out."""
    if config.attention == "alternating":
        return LATTE
    return LTX if config.positions == "metric" else WAN


def architecture_of(config: Mapping[str, Any], source: str) -> VideoDiTArchitecture:
    """The sizes of a published network, by its ``config.json`` in the layout of ``diffusers``.

    Raises:
        UserError: it is of another kind, or has a part that is not known here.
    """
    kind = config.get("_class_name")
    if kind == LATTE:
        return _latte(config, source)
    if kind == WAN:
        return _wan(config, source)
    if kind == LTX:
        return _ltx(config, source)
    raise UserError(
        f"{source} is a {kind or config.get('model_type') or 'model of unknown type'}, and a video diffusion "
        f"transformer is needed: {', '.join(_RULES)} of diffusers"
    )


def _latte(config: Mapping[str, Any], source: str) -> VideoDiTArchitecture:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    _refuse_others(
        config,
        source,
        norm_type="ada_norm_single",
        activation_fn="gelu-approximate",
        attention_bias=True,
        norm_elementwise_affine=False,
        norm_eps=_EPS,
        cross_attention_dim=width,
    )
    if config["sample_size"] >= 128:
        raise UserError(f"{source} scales its positions (sample_size {config['sample_size']}): below 128 is known")
    return VideoDiTArchitecture(
        width=width,
        depth=2 * config["num_layers"],
        num_heads=config["num_attention_heads"],
        mlp_width=4 * width,
        patch_size=(1, config["patch_size"], config["patch_size"]),
        attention="alternating",
        positions="added",
        modulation="shared",
        context_width=config["caption_channels"],
        variances=_has_variances(config, source),
    )


def _wan(config: Mapping[str, Any], source: str) -> VideoDiTArchitecture:
    _refuse_others(
        config,
        source,
        qk_norm="rms_norm_across_heads",
        image_dim=None,
        added_kv_proj_dim=None,
        pos_embed_seq_len=None,
        eps=_EPS,
    )
    head_dim = config["attention_head_dim"]
    if head_dim // 2 % 3 == 2:
        raise UserError(f"{source} has heads of {head_dim}, whose channels are divided among axes in another way")
    return VideoDiTArchitecture(
        width=config["num_attention_heads"] * head_dim,
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        mlp_width=config["ffn_dim"],
        patch_size=tuple(config["patch_size"]),
        attention="joint",
        positions="rotary",
        modulation="shared",
        context_width=config["text_dim"],
        context_norm=config["cross_attn_norm"],
        qk_norm=True,
        variances=_has_variances(config, source),
        time_frequencies=config["freq_dim"] // 2,
    )


def _ltx(config: Mapping[str, Any], source: str) -> VideoDiTArchitecture:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    _refuse_others(
        config,
        source,
        patch_size=1,
        patch_size_t=1,
        qk_norm="rms_norm_across_heads",
        activation_fn="gelu-approximate",
        attention_bias=True,
        attention_out_bias=True,
        norm_elementwise_affine=False,
        norm_eps=_EPS,
        cross_attention_dim=width,
    )
    return VideoDiTArchitecture(
        width=width,
        depth=config["num_layers"],
        num_heads=config["num_attention_heads"],
        mlp_width=4 * width,
        patch_size=(1, 1, 1),
        attention="joint",
        positions="metric",
        modulation="shared",
        context_width=config["caption_channels"],
        context_mask=True,
        rms_norm=True,
        qk_norm=True,
        qk_norm_eps=1e-5,
        variances=_has_variances(config, source),
    )


def clip_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Number of frames of a published network's clips, and their height and width in pixels, where it says so."""
    if config.get("_class_name") != LATTE:
        return {}
    return {"num_frames": config["video_length"], "size": _PIXELS * config["sample_size"]}


def pipeline_of(config: VideoDiTArchitecture) -> Pipeline:
    """The pipeline of ``diffusers`` for a network with these settings, which :func:`config_of` describes."""
    layout = layout_of(config)
    if layout == LATTE:
        return Pipeline("LattePipeline", "AutoencoderKL", _TEXT_LENGTHS[LATTE], {})
    if layout == LTX:
        return Pipeline("LTXPipeline", "AutoencoderKLLTXVideo", _TEXT_LENGTHS[LTX], {})
    settings = {"boundary_ratio": None, "expand_timesteps": False, "transformer_2": [None, None]}
    return Pipeline("WanPipeline", "AutoencoderKLWan", _TEXT_LENGTHS[WAN], settings)


def outputs_beside(theirs: Any, ours: VideoDiT) -> tuple[Tensor, Tensor]:
    """Outputs of a network of ``diffusers`` and of ours for the same drawn latents, times and texts."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, ours.size.t, ours.channels, *ours.size[1:], generator=generator)
    texts = torch.randn(1, 7, ours.config.context_width, generator=generator)
    time = torch.tensor([500])
    if layout_of(ours.config) == LTX:
        valid = torch.arange(7)[None] < 5
        steps = ours.config.latent_steps
        found = theirs(
            rearrange(latents, "b t c h w -> b (t h w) c"),
            timestep=time,
            encoder_hidden_states=texts,
            encoder_attention_mask=valid,
            rope_interpolation_scale=steps,
            **dict(zip(("num_frames", "height", "width"), ours.size)),
        ).sample
        found = rearrange(found, "b (t h w) c -> b t c h w", t=ours.size.t, h=ours.size.h)
        return found, ours(latents, time, ours.read(texts), valid)
    found = theirs(latents.transpose(1, 2), timestep=time, encoder_hidden_states=texts).sample
    return found.transpose(1, 2), ours(latents, time, ours.read(texts))


def context_length(config: Mapping[str, Any]) -> int:
    """Number of token ids of the texts that a published network was trained with, padding included."""
    return _TEXT_LENGTHS.get(str(config.get("_class_name")), max(_TEXT_LENGTHS.values()))


def text_sees_padding(config: Mapping[str, Any]) -> bool:
    """Whether the encoder of texts attends to padding in the pipeline of a published network."""
    return config.get("_class_name") == LTX


def _refuse_others(config: Mapping[str, Any], source: str, **known: Any) -> None:
    for name, value in known.items():
        if config.get(name) != value:
            raise UserError(f"{source} has {name} {config.get(name)!r}, and {value!r} is known here")


def _has_variances(config: Mapping[str, Any], source: str) -> bool:
    inputs = config["in_channels"]
    outputs = config.get("out_channels") or inputs
    if outputs not in (inputs, 2 * inputs):
        raise UserError(
            f"{source} makes {outputs} channels of {inputs}: as many or twice as many are known, for it is not told "
            "of images here"
        )
    return bool(outputs == 2 * inputs)


def config_of(config: VideoDiTArchitecture, *, channels: int, size: Grid) -> dict[str, Any]:
    """The ``config.json`` of the same network of ``diffusers``, for latents of ``channels`` and a size.

    Raises:
        UserError: ``diffusers`` has no network with these settings.
    """
    shared = {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.width // config.num_heads,
        "in_channels": channels,
        "out_channels": channels * (1 + config.variances),
    }
    latte = {
        "_class_name": LATTE,
        **shared,
        "num_layers": config.depth // 2,
        "cross_attention_dim": config.width,
        "attention_bias": True,
        "sample_size": size.h,
        "patch_size": config.patch_size[1],
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": _EPS,
        "caption_channels": config.context_width,
        "video_length": size.t,
    }
    wan = {
        "_class_name": WAN,
        **shared,
        "patch_size": list(config.patch_size),
        "text_dim": config.context_width,
        "freq_dim": 2 * config.time_frequencies,
        "ffn_dim": config.mlp_width,
        "num_layers": config.depth,
        "cross_attn_norm": config.context_norm,
        "qk_norm": "rms_norm_across_heads",
        "eps": _EPS,
        "image_dim": None,
        "added_kv_proj_dim": None,
        "pos_embed_seq_len": None,
    }
    ltx = {
        "_class_name": LTX,
        **shared,
        "patch_size": 1,
        "patch_size_t": 1,
        "cross_attention_dim": config.width,
        "num_layers": config.depth,
        "activation_fn": "gelu-approximate",
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": False,
        "norm_eps": _EPS,
        "caption_channels": config.context_width,
        "attention_bias": True,
        "attention_out_bias": True,
    }
    layout = layout_of(config)
    found = {LATTE: latte, WAN: wan, LTX: ltx}[layout]
    if size.h != size.w and layout == LATTE:
        raise UserError(f"Latte's frames are square, and latents are {size.h} x {size.w}")
    try:
        again = architecture_of(found, "this network")
        same = replace(again, latent_steps=config.latent_steps) == config  # the autoencoder says those
    except UserError:
        same = False
    if not same:
        raise UserError(
            "diffusers has no video diffusion transformer with these settings: the layouts of Latte, Wan and "
            "LTX-Video can be written (generation.vdt:latte, wan, ltx)"
        )
    return found


class _Place(NamedTuple):
    """Where a weight of ours is in their files."""

    names: list[str]
    """Their names, several for fused queries, keys and values."""
    turned: bool
    """Whether heads' channels lie in another order, that of rotary pairs."""


def _place(name: str, config: VideoDiTArchitecture) -> _Place:
    layout = layout_of(config)
    parts = name.split(".")
    if layout == LATTE and parts[0] == "blocks":
        number, second = divmod(int(parts[1]), 2)
        name = ".".join((("", "temporal_")[second] + "transformer_blocks", str(number), *parts[2:]))
    theirs = renamed(name, _RULES[layout])
    turned = layout != LATTE and ".attn1." in theirs
    for ours, names in _FUSED.items():
        if f".{ours}." in theirs:
            return _Place([theirs.replace(f".{ours}.", f".{one}.") for one in names], turned)
    return _Place([theirs], turned)


def _is_turned(name: str) -> bool:
    """Whether a weight of attention with rotary positions gives queries or keys."""
    return name.rsplit(".", 2)[-2] in ("to_q", "to_k", "norm_q", "norm_k")


def _paired(x: Tensor, heads: int) -> Tensor:
    """Rows of heads whose rotary pairs lie half a head apart, from ones whose pairs are neighbours."""
    return rearrange(x, "(h p two) ... -> (h two p) ...", h=heads, two=2)


def _neighbouring(x: Tensor, heads: int) -> Tensor:
    """The inverse of :func:`_paired`."""
    return rearrange(x, "(h two p) ... -> (h p two) ...", h=heads, two=2)


def from_diffusers_dit(
    theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], config: VideoDiTArchitecture
) -> Weights:
    """Weights of a network of these settings from one of ``diffusers``; ``wanted`` is our network's own state.

    Raises:
        UserError: a weight is missing or has no place here.
    """
    places = {name: _place(name, config) for name in wanted}
    needed = [key for place in places.values() for key in place.names]
    check_names(
        "this video diffusion transformer in diffusers' layout", theirs, needed, spare=(r"pos_embed\.pos_embed",)
    )
    ours: Weights = {}
    for name, place in places.items():
        tensors = [
            _paired(theirs[key], config.num_heads) if place.turned and _is_turned(key) else theirs[key]
            for key in place.names
        ]
        tensor = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        if name == "embed.weight" and tensor.ndim > 2:
            tensor = conv_to_linear(tensor if tensor.ndim == 5 else tensor[:, :, None])
        ours[name] = tensor.reshape(wanted[name].shape) if name.endswith(".table") else tensor
    return ours


def to_diffusers_dit(ours: Mapping[str, Tensor], config: VideoDiTArchitecture) -> Weights:
    """Their weights from ours."""
    theirs: Weights = {}
    layout = layout_of(config)
    for name, tensor in ours.items():
        place = _place(name, config)
        if name == "embed.weight" and layout != LTX:
            tensor = linear_to_conv(tensor, config.patch_size)
            tensor = tensor[:, :, 0] if layout == LATTE else tensor
        elif name.endswith(".table") and layout == WAN:
            tensor = tensor[None]
        for key, part in zip(place.names, tensor.chunk(len(place.names))):
            turned = place.turned and _is_turned(key)
            theirs[key] = (_neighbouring(part, config.num_heads) if turned else part).contiguous()
    return theirs


def to_peft_dit(ours: VideoDiT) -> tuple[dict[str, Any], Weights]:
    """The adaptation of a network as ``peft`` writes it for the same network of ``diffusers``: what is in
    ``adapter_config.json`` and ``adapter_model.safetensors``.

    Queries, keys and values, which are one layer here, share the factor that narrows.

    Raises:
        UserError: the network is not adapted, or ``diffusers`` has none with its settings.
    """
    config = ours.config
    config_of(config, channels=ours.channels, size=ours.size)
    weights: Weights = {}
    layers = dict(adapted_layers(ours))
    if not layers:
        raise UserError("the transformer is not adapted (--lora): there is no adaptation to write")
    targets = []
    for name, layer in layers.items():
        place = _place(f"{name}.weight", config)
        (part,) = layer.names
        down, up = (factor.detach() for factor in layer.product(part))
        if name == "embed" and layout_of(config) != LTX:  # a convolution there
            down = linear_to_conv(down, config.patch_size)
            down = down[:, :, 0] if layout_of(config) == LATTE else down
            up = up.reshape(*up.shape, *[1] * (down.ndim - 2))
        for key, rows in zip(place.names, up.chunk(len(place.names))):
            turned = place.turned and _is_turned(key)
            target = key.removesuffix(".weight")
            targets.append(target)
            weights[f"base_model.model.{target}.lora_A.weight"] = down.clone()
            weights[f"base_model.model.{target}.lora_B.weight"] = (
                _neighbouring(rows, config.num_heads) if turned else rows
            ).clone()
    return {
        "peft_type": "LORA",
        "r": layer.rank,
        "lora_alpha": layer.alpha,
        "lora_dropout": layer.dropout.p,
        "target_modules": targets,
        "bias": "none",
        "inference_mode": True,
    }, weights
