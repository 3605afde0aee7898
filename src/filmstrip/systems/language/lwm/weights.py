"""The weights of LWM's published JAX code by our names."""

from __future__ import annotations

from collections.abc import Mapping

from einops import rearrange
from torch import Tensor

from filmstrip.models.decoder import Decoder
from filmstrip.models.llama_layout import from_llama
from filmstrip.weights.flax import Tree
from filmstrip.weights.keymap import Weights

_STACK, _LAYERS = "transformer/h/scan_decoder/", "transformer/h/"
_BLOCK = {
    "attention/wq": "self_attn.q_proj",
    "attention/wk": "self_attn.k_proj",
    "attention/wv": "self_attn.v_proj",
    "attention/wo": "self_attn.o_proj",
    "feed_forward/w1": "mlp.gate_proj",
    "feed_forward/w2": "mlp.down_proj",
    "feed_forward/w3": "mlp.up_proj",
}
_NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_TURNED = ("attention/wq", "attention/wk")
"""Layers whose rows in a head lie in pairs that rotary embeddings turn; ours turn row ``i`` with ``i + d / 2``."""


def from_published(theirs: Mapping[str, Tensor], decoder: Decoder) -> Weights:
    """The weights of a decoder with two vocabularies from flat ``params``; layers may be stacked (``scan_layers``).

    Raises:
        UserError: an array is missing or has no place here.
    """
    flat = {name.removeprefix("params/"): tensor for name, tensor in theirs.items()}
    for name in [name for name in flat if name.startswith(_STACK)]:
        rest = name.removeprefix(_STACK)
        flat |= {f"{_LAYERS}{i}/{rest}": layer for i, layer in enumerate(flat.pop(name))}
    tree, config = Tree(flat, "this state of LWM"), decoder.config
    llama = {
        "model.embed_tokens.weight": tree["transformer/wte/embedding"],
        "model.norm.weight": tree["transformer/ln_f/kernel"],
    }
    if not config.tied:
        llama["lm_head.weight"] = tree.dense("lm_head")["weight"]
    for i in range(config.depth):
        here, there = f"model.layers.{i}", f"{_LAYERS}{i}"
        for name, own in _BLOCK.items():
            weight = tree.dense(f"{there}/{name}")["weight"]
            if name in _TURNED:
                heads = weight.shape[0] // (config.head_dim or config.width // config.num_heads)
                weight = rearrange(weight, "(h d two) w -> (h two d) w", h=heads, two=2)
            llama[f"{here}.{own}.weight"] = weight.contiguous()
        for name, own in _NORMS.items():
            llama[f"{here}.{own}.weight"] = tree[f"{there}/{name}/kernel"]
    found = {
        **from_llama(llama, config),
        "vision_embed.weight": tree["transformer/vte/embedding"],
        "vision_head.weight": tree.dense("vision_head")["weight"].contiguous(),
    }
    tree.check_all_read()
    return found
