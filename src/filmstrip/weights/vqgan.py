"""Weights of the VQ-GANs that TECO's published code loads: a flax checkpoint (:mod:`filmstrip.weights.flax`).

Its ``params`` and ``stats`` are flattened into one mapping: the codebook, ``quantize/embeddings``, lies in the
latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import torch
from torch import Tensor, nn

from filmstrip.models.frame_autoencoder import Down, FrameAttention, ResidualBlock, Up
from filmstrip.weights.flax import Tree, under
from filmstrip.weights.keymap import Weights

_KINDS = {ResidualBlock: "ResnetBlock", FrameAttention: "AttnBlock", Down: "Downsample", Up: "Upsample"}


def from_vqgan(theirs: Mapping[str, Tensor], objective: nn.Module) -> Weights:
    """Weights of an :class:`~filmstrip.objectives.adversarial.AdversarialTokenizer`, but for the loss's own.

    Its codebook is learnt.

    Raises:
        UserError: an array is missing or has no place here.
    """
    tree = Tree(theirs, "this state of a VQ-GAN")
    network = objective.autoencoder
    encoder = [("down", network.down), ("encoder_middle", network.encoder_middle)]
    decoder = [("decoder_middle", network.decoder_middle), ("up", network.up)]
    ours = {
        **under("conv_in", tree.conv("encoder/Conv_0")),
        **_blocks(tree, "encoder", encoder),
        **under("encoder_out.0", tree.norm("encoder/GroupNorm_0")),
        **under("encoder_out.2", tree.conv("encoder/Conv_1")),
        **under("to_latents", tree.conv("quant_conv")),
        **under("from_latents", tree.conv("post_quant_conv")),
        **under("decoder_in", tree.conv("decoder/Conv_0")),
        **_blocks(tree, "decoder", decoder),
        **under("decoder_out.0", tree.norm("decoder/GroupNorm_0")),
        **under("decoder_out.2", tree.conv("decoder/Conv_1")),
    }
    codes = tree["quantize/embeddings"][None]
    tree.check_all_read()
    return under("autoencoder", ours) | {"bottleneck.codes": codes}


def _blocks(tree: Tree, side: str, parts: Sequence[tuple[str, nn.Module]]) -> Weights:
    """All blocks of the encoder or the decoder, in the order of its parts: there each kind is numbered through."""
    ours, numbers = {}, {kind: count() for kind in _KINDS}
    for prefix, part in parts:
        for name, module in part.named_modules():
            kind = type(module)
            if kind in _KINDS:
                theirs = f"{side}/{_KINDS[kind]}_{next(numbers[kind])}"
                ours |= under(f"{prefix}.{name}", _block(tree, theirs, module))
    return ours


def _block(tree: Tree, name: str, module: nn.Module) -> Weights:
    if isinstance(module, FrameAttention):
        q, k, v, out = (tree.conv(f"{name}/Conv_{i}") for i in range(4))
        qkv = {kind: torch.cat([part[kind] for part in (q, k, v)]) for kind in ("weight", "bias")}
        return {
            **under("norm", tree.norm(f"{name}/GroupNorm_0")),
            **under("attention.qkv", {"weight": qkv["weight"].flatten(1), "bias": qkv["bias"]}),
            **under("attention.out", {"weight": out["weight"].flatten(1), "bias": out["bias"]}),
        }
    if isinstance(module, (Down, Up)):
        return tree.conv(f"{name}/Conv_0")
    ours = {
        **under("norm1", tree.norm(f"{name}/GroupNorm_0")),
        **under("conv1", tree.conv(f"{name}/Conv_0")),
        **under("norm2", tree.norm(f"{name}/GroupNorm_1")),
        **under("conv2", tree.conv(f"{name}/Conv_1")),
    }
    if not isinstance(module.shortcut, nn.Identity):
        ours |= under("shortcut", tree.conv(f"{name}/Conv_2"))
    return ours
