"""Weights of ElasticTok's published code: the flat ``params`` of its checkpoint (:mod:`filmstrip.weights.flax`)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.weights.flax import Tree, under
from filmstrip.weights.keymap import Weights

_SCANNED = "scan_decoder"  # the layers of encoder and decoder in one array each, as released


def from_elastictok(theirs: Mapping[str, Tensor], network: nn.Module) -> Weights:
    """Weights of an ElasticTok, but for the loss's own; ``network`` is its autoencoder.

    Their layers may be numbered or, as released, in one array each.

    Raises:
        UserError: an array is missing or has no place here.
    """
    tree = Tree(_numbered(theirs), "this state of ElasticTok")
    fate = [tree[f"encoder/is_{which}_embed"] for which in ("masked", "kept")]
    ours = {
        "fate.weight": torch.cat(fate),
        **under("embed.proj", tree.dense("encoder/in_proj")),
        **_transformer(tree, "encoder", network.encoder),
        **under("to_latents", tree.dense("encoder/pre_quant")),
        **under("from_latents", tree.dense("decoder/post_quant")),
        **_transformer(tree, "decoder", network.decoder),
        **under("to_pixels", tree.dense("decoder/out_proj")),
    }
    tree.check_all_read()
    return under("autoencoder", ours)


def _numbered(theirs: Mapping[str, Tensor]) -> Weights:
    """One array for each layer."""
    numbered = {}
    for name, value in theirs.items():
        before, scanned, after = name.partition(f"/{_SCANNED}/")
        if scanned:
            numbered |= {f"{before}/{i}/{after}": layer for i, layer in enumerate(value)}
        else:
            numbered[name] = value
    return numbered


def _transformer(tree: Tree, side: str, transformer: nn.Module) -> Weights:
    """The layers of the encoder or of the decoder, and the norm after them."""
    ours = {f"{side}.norm.weight": tree[f"{side}/ln_f/kernel"]}
    for i, block in enumerate(transformer.blocks):
        name, heads = f"{side}/{side}_blocks/{i}", block.attention.num_heads
        q, k, v, out = (tree.dense(f"{name}/attention/w{part}")["weight"] for part in "qkvo")
        gate, down, value = (tree.dense(f"{name}/feed_forward/w{part}")["weight"] for part in "123")
        layer = {
            "norm1.weight": tree[f"{name}/attention_norm/kernel"],
            "attention.qkv.weight": torch.cat([_halves(q, heads), _halves(k, heads), v]),
            "attention.out.weight": out,
            "norm2.weight": tree[f"{name}/ffn_norm/kernel"],
            "mlp.gate_and_value.weight": torch.cat([gate, value]),
            "mlp.out.weight": down,
        }
        ours |= under(f"{side}.blocks.{i}", layer)
    return ours


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rotary pairs, which are neighbours there, as the first and the second half of each head."""
    return rearrange(weight, "(h pairs two) d -> (h two pairs) d", h=heads, two=2)
