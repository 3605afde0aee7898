"""Decoder-only language models in LLaMA's layout, in which Mistral's, Qwen's and SmolLM's files are written too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig
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
FAMILIES = tuple(_DEFAULTS)
"""The families that become a :class:`~filmstrip.models.decoder.Decoder`, by ``model_type``."""


def decoder_config(config: Mapping[str, Any], source: str) -> DecoderConfig:
    """The sizes of a language model from its ``config.json``.

    Raises:
        UserError: it is of no family in :data:`FAMILIES`, or asks for a part that the decoder does not have.
    """
    kind = config.get("model_type", "model of unknown type")
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
        "rope_type": scaled != "default",
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
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
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
        weights = from_llama(theirs, decoder.config)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    check_names(f"{source}, by our names and its config.json,", weights, decoder.state_dict())
    try:
        decoder.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the weights of {source} do not fit its config.json: {error}") from None


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
