"""Decoder-only language models in LLaMA's layout, in which Mistral's, Qwen's and SmolLM's files are written too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from filmstrip.models.decoder import DecoderConfig
from filmstrip.weights.keymap import KeyMap, Weights
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
