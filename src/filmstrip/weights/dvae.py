"""DALL-E's published discrete VAE: the state of its encoder and of its decoder, both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from filmstrip.weights.keymap import Weights, check_names

_DEPTH = 2  # blocks in a group, everywhere
_CODES = ["blocks.input.w", "blocks.input.b"]  # of the decoder, which ours has as codes


def from_dalle(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> Weights:
    """Weights of :class:`~filmstrip.systems.tokenizers.dvae.DVAE` from the two published states.

    The decoder's first convolution sees codes in proportions that add up to one: its columns, with its bias added to
    each, are our codes.

    Raises:
        UserError: a state lacks something, or has something else.
    """
    ours: Weights = {}
    for theirs, names, rest in ((encoder, _names("down"), []), (decoder, _names("up"), _CODES)):
        what = "this is not the state of DALL-E's dVAE: it"
        check_names(what, theirs, [*names.values(), *rest], optional=_same_width(theirs))
        ours |= {name: theirs[key] for name, key in names.items() if key in theirs}
    weight = decoder["blocks.input.w"].flatten(1)
    return ours | {"bottleneck.codes": (weight + decoder["blocks.input.b"][:, None]).T.contiguous()}


def to_dalle(ours: Mapping[str, Tensor]) -> tuple[Weights, Weights]:
    """The published layout of the encoder and of the decoder, whose first convolution then has a bias of zero."""
    encoder, decoder = (
        {key: ours[name] for name, key in _names(side).items() if name in ours} for side in ("down", "up")
    )
    codes = ours["bottleneck.codes"]
    decoder["blocks.input.w"] = codes.T.contiguous()[:, :, None, None]
    decoder["blocks.input.b"] = torch.zeros(codes.shape[1])
    return encoder, decoder


def _same_width(theirs: Mapping[str, Tensor]) -> list[str]:
    """Patterns of the paths around blocks that end as wide as they begin: there are none there."""
    blocks = [name.removesuffix(".res_path.conv_1.w") for name in theirs if name.endswith(".res_path.conv_1.w")]
    last = {block: theirs.get(f"{block}.res_path.conv_4.w") for block in blocks}
    same = [b for b, w in last.items() if w is not None and len(w) == theirs[f"{b}.res_path.conv_1.w"].shape[1]]
    return [rf"{re.escape(block)}\.id_path\.[wb]" for block in same]


def _names(side: str) -> dict[str, str]:
    """Ours to theirs, for the encoder (``down``) or the decoder (``up``)."""
    convs = {"autoencoder.encoder_in": "input", "autoencoder.encoder_out": "output.conv"}
    if side == "up":
        convs = {"autoencoder.decoder_out": "output.conv"}
    for group in range(4):
        for block in range(_DEPTH):
            ours = f"autoencoder.{side}.{group}.blocks.{block}"
            theirs = f"group_{group + 1}.block_{block + 1}"
            convs[f"{ours}.shortcut"] = f"{theirs}.id_path"
            convs |= {f"{ours}.convs.{i}": f"{theirs}.res_path.conv_{i + 1}" for i in range(4)}
    return {
        f"{ours}.{a}": f"blocks.{theirs}.{b}"
        for ours, theirs in convs.items()
        for a, b in (("weight", "w"), ("bias", "b"))
    }
