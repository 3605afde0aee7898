"""Decoder-only language models in LLaMA's layout, in which Mistral's, Qwen's and SmolLM's files are written too.

What loads a language model takes GPT-2's files too, whose layout is another one
(:mod:`filmstrip.models.gpt2_layout`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.gpt2_layout import KIND, from_gpt2, gpt2_config
from filmstrip.nn.lora import Lora, is_adaptation
from filmstrip.weights.keymap import KeyMap, Weights, check_names
from filmstrip.weights.layers import fuse, layers, unfuse

_QKV = ("q_proj", "k_proj", "v_proj")
_GATE, _GATED = ("gate_proj", "up_proj"), "gate_and_value"
_MAP = KeyMap(
    (
        ("model.embed_tokens.weight", "embed.weight"),
        *layers(
            "model.layers",
            "blocks",
            (
                ("input_layernorm.weight", "norm1.weight"),
                ("self_attn.qkv.weight", "attention.qkv.weight"),
                ("self_attn.qkv.bias", "attention.qkv.bias"),
                ("self_attn.q_norm.weight", "attention.q_norm.weight"),
                ("self_attn.k_norm.weight", "attention.k_norm.weight"),
                ("self_attn.o_proj.weight", "attention.out.weight"),
                ("post_attention_layernorm.weight", "norm2.weight"),
                ("mlp.gate_and_value.weight", "mlp.gate_and_value.weight"),
                ("mlp.down_proj.weight", "mlp.out.weight"),
            ),
        ),
        ("model.norm.weight", "norm.weight"),
        ("lm_head.weight", "head.weight"),
    ),
    spare=(r".*\.rotary_emb\.inv_freq",),
)


_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"vocab_size": 32_000, "intermediate_size": 11_008},
    "mistral": {
        "vocab_size": 32_000,
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {"vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32},
}
"""What a ``config.json`` may leave out, by family, as ``transformers`` completes it."""
FAMILIES = (*_DEFAULTS, KIND)
"""The families that become a :class:`~filmstrip.models.decoder.Decoder`, by ``model_type``."""


def decoder_config(config: Mapping[str, Any], source: str) -> DecoderConfig:
    """The sizes of a language model from its ``config.json``.

    Raises:
        UserError: it is of no family in :data:`FAMILIES`, or asks for a part that the decoder does not have.
    """
    kind = config.get("model_type", "model of unknown type")
    if kind == KIND:
        return gpt2_config(config, source)
    if kind not in _DEFAULTS:
        raise UserError(
            f"{source} is a {kind}; the language models that can be loaded from the Hub's layout are: "
            f"{', '.join(FAMILIES)}"
        )
    told = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, **_DEFAULTS[kind], **config}
    rope = told.get("rope_parameters") or told.get("rope_scaling") or {}
    scaled = rope.get("rope_type", rope.get("type", "default"))
    unknown = {
        "hidden_act": told.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(told.get("attention_bias")),
        "mlp_bias": bool(told.get("mlp_bias")),
        "rope_type": scaled not in ("default", "linear"),
    }
    if said := [name for name, is_unknown in unknown.items() if is_unknown]:
        shown = ", ".join(f"{name} {scaled if name == 'rope_type' else told[name]!r}" for name in said)
        raise UserError(f"{source} asks for {shown}, which this decoder does not have")
    window = told.get("sliding_window")
    if kind == "qwen2":
        whole = told.get("max_window_layers", 28)  # the first layers of all, which have no window
        if not told.get("use_sliding_window") or whole >= told["num_hidden_layers"]:
            window = None
        elif whole:
            raise UserError(f"{source} has a window in some of its layers, which this decoder does not have")
    plain_dim = told["hidden_size"] // told["num_attention_heads"]
    return DecoderConfig(
        vocab_size=told["vocab_size"],
        width=told["hidden_size"],
        depth=told["num_hidden_layers"],
        num_heads=told["num_attention_heads"],
        num_kv_heads=told.get("num_key_value_heads"),
        head_dim=None if told.get("head_dim") == plain_dim else told.get("head_dim"),
        mlp_dim=told["intermediate_size"],
        tied=bool(told.get("tie_word_embeddings", False)),
        rope_base=float(rope.get("rope_theta") or told.get("rope_theta") or 10_000.0),
        rope_index_scale=float(rope.get("factor", 1.0)) if scaled == "linear" else 1.0,
        norm_eps=told.get("rms_norm_eps", 1e-6),
        qkv_bias=kind == "qwen2",
        window=window if kind != "llama" else None,
    )


def config_in_hub(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of :func:`decoder_config`: the ``config.json`` of a decoder.

    Raises:
        UserError: ``transformers`` has no such network in these families.
    """
    if config.block != "llama" or config.positions != "rotary" or config.qk_norm:
        raise UserError(
            "only a decoder with LLaMA's blocks and rotary positions is one of transformers' LLaMA family"
        )
    kind = "qwen2" if config.qkv_bias else "mistral" if config.window else "llama"
    name = {"qwen2": "Qwen2ForCausalLM", "mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}[kind]
    windowed: dict[str, Any] = {} if kind == "llama" else {"sliding_window": config.window}
    scale = config.rope_index_scale
    scaled: dict[str, Any] = {"rope_type": "default"} if scale == 1 else {"rope_type": "linear", "factor": scale}
    if kind == "qwen2" and config.window:
        windowed |= {"use_sliding_window": True, "max_window_layers": 0}
    return {
        "model_type": kind,
        "architectures": [name],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads or config.num_heads,
        "head_dim": config.head_dim or config.width // config.num_heads,
        "intermediate_size": config.mlp_dim,
        "tie_word_embeddings": config.tied,
        "rope_parameters": {**scaled, "rope_theta": config.rope_base},
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        **windowed,
    }


def load_decoder(decoder: Decoder, theirs: Mapping[str, Tensor], source: str) -> None:
    """Copy a language model's tensors, by their names in the Hub's layout, into a decoder of its sizes.

    Raises:
        UserError: the tensors are others than the decoder needs.
    """
    try:
        weights = (from_gpt2 if decoder.config.positions == "learned" else from_llama)(theirs, decoder.config)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    copy_decoder(decoder, weights, f"{source}, by our names and its config.json,")


def copy_decoder(decoder: Decoder, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy a language model's weights into a decoder of its sizes, whose adaptation, if it has one, stays.

    Raises:
        UserError: the weights are others than the decoder needs.
    """
    needed = [name for name in decoder.state_dict() if not is_adaptation(name)]
    check_names(source, weights, needed)
    try:
        decoder.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"{source} has weights of other shapes: {error}") from None


def from_llama(theirs: Mapping[str, Tensor], config: DecoderConfig) -> Weights:
    """The weights of a :class:`~filmstrip.models.decoder.Decoder` from the state of a ``LlamaForCausalLM``.

    A decoder in muP gets those with which its factors make it the same function.

    A file of a tied model may hold the output layer, equal to the embedding, or leave it out.

    Raises:
        UserError: it has a name that no such model has, or a part of a layer is missing.
    """
    if config.tied:
        theirs = {name: tensor for name, tensor in theirs.items() if name != "lm_head.weight"}
    return _with_factors(_MAP.ours(fuse(fuse(theirs, _QKV), _GATE, _GATED)), config, -1)


def to_llama(ours: Mapping[str, Tensor], config: DecoderConfig) -> Weights:
    """The inverse of :func:`from_llama`."""
    ours = _with_factors(ours, config, 1)
    head_dim = config.head_dim or config.width // config.num_heads
    kv_heads = config.num_kv_heads or config.num_heads
    sizes = [head_dim * heads for heads in (config.num_heads, kv_heads, kv_heads)]
    return unfuse(unfuse(_MAP.theirs(ours), _QKV, sizes=sizes), _GATE, _GATED)


def _with_factors(weights: Mapping[str, Tensor], config: DecoderConfig, power: int) -> Weights:
    """Weights with muP's factors of the forward pass, which LLaMA does not have, multiplied in or divided out."""
    output, scores = config.width_ratio**-power, config.score_scale**power
    if output == scores == 1:
        return dict(weights)
    head_dim = config.head_dim or config.width // config.num_heads
    queries = config.num_heads * head_dim
    found = {}
    for name, tensor in weights.items():
        if name == "head.weight":
            tensor = tensor * output
        elif name.endswith("attention.q_norm.weight"):
            tensor = tensor * scores
        elif ".attention.qkv." in name and not config.qk_norm:
            tensor = torch.cat([tensor[:queries] * scores, tensor[queries:]])
        found[name] = tensor
    return found


ADAPTABLE = (*_QKV, "o_proj", *_GATE, "down_proj")
"""Layers of a block that :func:`adapt` adapts, by LLaMA's names."""
_OURS = {
    **dict.fromkeys(_QKV, ("attention", "qkv")),
    "o_proj": ("attention", "out"),
    **dict.fromkeys(_GATE, ("mlp", "gate_and_value")),
    "down_proj": ("mlp", "out"),
}


def adapt(decoder: Decoder, names: Sequence[str], *, rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Adapt layers of every block by products of low rank, in place; nothing else of the decoder is trained then.

    Raises:
        UserError: a name is not in :data:`ADAPTABLE`, or the blocks are not LLaMA's.
    """
    if decoder.config.block != "llama":
        raise UserError(
            f"only LLaMA's blocks can be adapted, and this language model has those of {decoder.config.block}: train "
            "it (decoder in objective.trains), or keep it frozen"
        )
    if unknown := [name for name in names if name not in ADAPTABLE]:
        raise UserError(f"{', '.join(unknown)} cannot be adapted: choose from {', '.join(ADAPTABLE)}")
    decoder.requires_grad_(False)
    sizes = _outputs(decoder)
    for block in decoder.blocks:
        for room, layer in dict.fromkeys(_OURS[name] for name in names):
            own = [name for name, place in _OURS.items() if place == (room, layer)]
            module = getattr(block, room)
            adapted = Lora(
                getattr(module, layer),
                rank=rank,
                alpha=alpha,
                dropout=dropout,
                parts={name: sizes[name] for name in own},
                adapted=[name for name in own if name in names],
            )
            setattr(module, layer, adapted)


def _outputs(decoder: Decoder) -> dict[str, int]:
    """Number of outputs of each layer of a block, by LLaMA's names."""
    block = decoder.blocks[0]
    heads, kv_heads, dim = (getattr(block.attention, key) for key in ("num_heads", "num_kv_heads", "head_dim"))
    hidden, width = block.mlp.out.in_features, decoder.width
    return dict(
        zip(
            ADAPTABLE,
            (heads * dim, kv_heads * dim, kv_heads * dim, width, hidden, hidden, width),
            strict=True,
        )
    )


_PEFT = "model.layers"
"""Where a language model's blocks are in ``transformers``' models, but for the room of a larger one."""
_ROOMS = {"attention": "self_attn", "mlp": "mlp"}


def to_peft(decoder: Decoder, blocks: str = _PEFT) -> tuple[dict[str, Any], Weights]:
    """The adaptation of a decoder as ``peft`` writes it: ``adapter_config.json`` and ``adapter_model.safetensors``.

    ``blocks`` is where its blocks are in the model of ``transformers`` that it is part of.

    Raises:
        UserError: the decoder is not adapted.
    """
    weights: Weights = {}
    targets: dict[str, None] = {}
    layer = None
    for i, room, layer in _adapted(decoder):
        for name in layer.names:
            targets[name] = None
            for side, tensor in zip("AB", layer.product(name)):
                key = f"base_model.model.{blocks}.{i}.{_ROOMS[room]}.{name}.lora_{side}.weight"
                weights[key] = tensor.detach().clone()
    if layer is None:
        raise UserError("the language model is not adapted: there is no adaptation to write")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": layer.rank,
        "lora_alpha": layer.alpha,
        "lora_dropout": layer.dropout.p,
        # By their places: the same names may occur in a vision network beside the language model.
        "target_modules": list(targets)
        if blocks == _PEFT
        else rf"{re.escape(blocks)}\.\d+\.(?:self_attn|mlp)\.(?:{'|'.join(targets)})",
        "bias": "none",
        "inference_mode": True,
    }
    return config, weights


def adapt_from_peft(decoder: Decoder, config: Mapping[str, Any], theirs: Mapping[str, Tensor], source: str) -> None:
    """Adapt a decoder as an adaptation of ``peft`` says, in place.

    Raises:
        UserError: it is none of low rank, has options that are not known here, or its tensors do not fit.
    """
    plain = {"bias": "none", "use_dora": False, "use_rslora": False, "fan_in_fan_out": False}
    if config.get("peft_type") != "LORA" or any(config.get(key, value) != value for key, value in plain.items()):
        raise UserError(f"{source} is no plain adaptation of low rank (LORA without biases, DoRA or rank scaling)")
    for key in ("rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform"):
        if config.get(key):
            raise UserError(f"{source} has {key}, which is not known here")
    named = {name.split(".")[-3] for name in theirs}
    adapt(
        decoder,
        [name for name in ADAPTABLE if name in named],
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
    )
    _, own = to_peft(decoder)
    check_names(source, theirs, own)
    if unlike := [name for name, tensor in own.items() if theirs[name].shape != tensor.shape]:
        raise UserError(f"{source} does not fit this language model: {unlike[0]} is {tuple(theirs[unlike[0]].shape)}")
    with torch.no_grad():
        for i, room, layer in _adapted(decoder):
            for name in layer.names:
                for side, parameter in zip("AB", layer.product(name)):
                    parameter.copy_(theirs[f"base_model.model.{_PEFT}.{i}.{_ROOMS[room]}.{name}.lora_{side}.weight"])


def _adapted(decoder: Decoder) -> Iterator[tuple[int, str, Lora]]:
    """The adapted layers of a decoder with the number of their block and their part of it."""
    for i, block in enumerate(decoder.blocks):
        for room, name in dict.fromkeys(_OURS.values()):
            layer = getattr(getattr(block, room), name)
            if isinstance(layer, Lora):
                yield i, room, layer
