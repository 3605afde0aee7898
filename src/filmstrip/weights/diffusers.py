"""Weights of per-frame autoencoders in the layout of ``diffusers``: ``AutoencoderKL`` and ``VQModel``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from filmstrip.weights.keymap import Weights, check_names

_DIFFUSERS = (
    (r"(down|up)\.(\d+)\.blocks\.(\d+)\.", r"\1_blocks.\2.resnets.\3."),
    (r"(down|up)\.(\d+)\.attentions\.(\d+)\.", r"\1_blocks.\2.attentions.\3."),
    (r"(down|up)\.(\d+)\.resample\.", r"\1_blocks.\2.\1samplers.0.conv."),
    (r"middle\.0\.", "mid_block.resnets.0."),
    (r"middle\.1\.", "mid_block.attentions.0."),
    (r"middle\.2\.", "mid_block.resnets.1."),
    (r"out\.0\.", "conv_norm_out."),
    (r"out\.2\.", "conv_out."),
    (r"in\.", "conv_in."),
)
"""Parts of our names to those of ``AutoencoderKL`` and ``VQModel``."""
_WHOLE = {"to_latents": "quant_conv", "from_latents": "post_quant_conv"}
_CODES = "quantize.embedding.weight"
_QKV = ("to_q", "to_k", "to_v")


def from_diffusers(theirs: Mapping[str, Tensor], names: Collection[str]) -> Weights:
    """Our weights of these ``names`` (of a VQ-GAN or VAE here) from theirs: autoencoder and codes, nothing else.

    Raises:
        UserError: the two are not of one kind and size: theirs lack a weight, or have one more.
    """
    keys = {name: _in_diffusers(name) for name in names if name.startswith("autoencoder.")}
    if "bottleneck.codes" in names:
        keys["bottleneck.codes"] = [_CODES]
    check_names("this autoencoder in diffusers' layout", theirs, [key for row in keys.values() for key in row])
    ours = {name: torch.cat([theirs[key] for key in row]) for name, row in keys.items()}
    return {name: tensor[None] if name == "bottleneck.codes" else tensor for name, tensor in ours.items()}


def to_diffusers(ours: Mapping[str, Tensor]) -> Weights:
    """Their weights from ours; discriminator and perceptual network have no place there."""
    theirs = {}
    for name, tensor in ours.items():
        if name == "bottleneck.codes":
            theirs[_CODES] = tensor[0]
        elif name.startswith("autoencoder."):
            keys = _in_diffusers(name)
            theirs |= dict(zip(keys, (part.contiguous() for part in tensor.chunk(len(keys)))))
    return theirs


def _in_diffusers(name: str) -> list[str]:
    """Their names for a weight of the autoencoder: three of them for fused queries, keys and values."""
    name = name.removeprefix("autoencoder.")
    stem, _, rest = name.partition(".")
    if stem in _WHOLE:
        return [f"{_WHOLE[stem]}.{rest}"]
    side = "decoder" if stem.startswith(("decoder", "up")) else "encoder"
    inner = name.removeprefix(f"{side}_").removeprefix("conv_")
    for ours, theirs in _DIFFUSERS:
        inner, found = re.subn(f"^{ours}", theirs, inner)
        if found:
            break
    inner = inner.replace(".shortcut.", ".conv_shortcut.")
    if ".attentions." in inner:
        inner = inner.replace(".norm.", ".group_norm.").replace(".attention.out.", ".to_out.0.")
    parts = [inner.replace(".attention.qkv.", f".{part}.") for part in _QKV] if ".qkv." in inner else [inner]
    return [f"{side}.{part}" for part in parts]
