"""Per-frame autoencoders in the layout of ``diffusers``: ``AutoencoderKL`` and ``VQModel``, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.weights.keymap import Weights

_PARTS = (
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
_WHOLE = {"to_latents": "quant_conv", "from_latents": "post_quant_conv"}
_QKV = ("to_q", "to_k", "to_v")


def from_diffusers(theirs: Mapping[str, Tensor], names: Iterable[str]) -> Weights:
    """Our weights of these ``names`` (of a VQ-GAN or VAE here) from theirs; names that they have not are left out.

    Raises:
        UserError: the autoencoder itself is not complete.
    """
    ours = {}
    for name in names:
        if name == "bottleneck.codes" and "quantize.embedding.weight" in theirs:
            ours[name] = theirs["quantize.embedding.weight"][None]
        elif name.startswith("autoencoder."):
            keys = _theirs(name)
            if missing := [key for key in keys if key not in theirs]:
                raise UserError(f"the autoencoder of diffusers' layout has no {missing[0]}: is it of another size?")
            ours[name] = torch.cat([theirs[key] for key in keys])
    return ours


def to_diffusers(ours: Mapping[str, Tensor]) -> Weights:
    """Their weights from ours; discriminator and perceptual network have no place there."""
    theirs = {}
    for name, tensor in ours.items():
        if name == "bottleneck.codes":
            theirs["quantize.embedding.weight"] = tensor[0]
        elif name.startswith("autoencoder."):
            keys = _theirs(name)
            theirs |= dict(zip(keys, (part.contiguous() for part in tensor.chunk(len(keys)))))
    return theirs


def _theirs(name: str) -> list[str]:
    """Their names for a weight of the autoencoder: three of them for fused queries, keys and values."""
    name = name.removeprefix("autoencoder.")
    stem, _, rest = name.partition(".")
    if stem in _WHOLE:
        return [f"{_WHOLE[stem]}.{rest}"]
    side = "decoder" if stem.startswith(("decoder", "up")) else "encoder"
    inner = name.removeprefix(f"{side}_").removeprefix("conv_")
    for ours, theirs in _PARTS:
        inner, found = re.subn(f"^{ours}", theirs, inner)
        if found:
            break
    inner = inner.replace(".shortcut.", ".conv_shortcut.")
    if ".attentions." in inner:
        inner = inner.replace(".norm.", ".group_norm.").replace(".attention.out.", ".to_out.0.")
    parts = [inner.replace(".attention.qkv.", f".{part}.") for part in _QKV] if ".qkv." in inner else [inner]
    return [f"{side}.{part}" for part in parts]
