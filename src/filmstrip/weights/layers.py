"""The parts of a transformer's layer as ``transformers`` names them in its files, and as ours are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from filmstrip.weights.keymap import Weights, check_names

LAYER = (
    ("attention.attention.qkv.weight", "attention.qkv.weight"),
    ("attention.output.dense.weight", "attention.out.weight"),
    ("attention.output.dense.bias", "attention.out.bias"),
    ("layernorm_before.weight", "norm1.weight"),
    ("layernorm_before.bias", "norm1.bias"),
    ("layernorm_after.weight", "norm2.weight"),
    ("layernorm_after.bias", "norm2.bias"),
    ("intermediate.dense.weight", "mlp.fc1.weight"),
    ("intermediate.dense.bias", "mlp.fc1.bias"),
    ("output.dense.weight", "mlp.fc2.weight"),
    ("output.dense.bias", "mlp.fc2.bias"),
)
"""A layer of an image's or a video's transformer, once its queries, keys and values are fused; not their biases."""

_PARTS = ("query", "key", "value")


def layers(theirs: str, ours: str, rows: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The rows of one layer, for all the layers under two prefixes."""
    return tuple((f"{theirs}.{{i}}.{a}", f"{ours}.{{i}}.{b}") for a, b in rows)


def fuse(theirs: Mapping[str, Tensor], parts: Sequence[str] = _PARTS) -> Weights:
    """One ``qkv`` for each attention's three ``parts``, ``query``, ``key`` and ``value``, weights and biases.

    Raises:
        UserError: an attention lacks one of the three.
    """
    fused = {}
    for name, tensor in theirs.items():
        prefix, _, kind = name.rpartition(".")
        stem, _, part = prefix.rpartition(".")
        if part not in parts:
            fused[name] = tensor
        elif f"{stem}.qkv.{kind}" not in fused:
            fused[f"{stem}.qkv.{kind}"] = together(theirs, f"{stem}.", f".{kind}", parts)
    return fused


def together(theirs: Mapping[str, Tensor], before: str, after: str, parts: Sequence[str] = _PARTS) -> Tensor:
    """What stands between ``before`` and ``after`` of the ``parts``, in one.

    Raises:
        UserError: one of them is missing.
    """
    names = [f"{before}{part}{after}" for part in parts]
    check_names("this state", [name for name in names if name in theirs], names)
    return torch.cat([theirs[name] for name in names])


def unfuse(fused: Mapping[str, Tensor]) -> Weights:
    """The inverse of :func:`fuse`."""
    theirs = {}
    for name, tensor in fused.items():
        if ".qkv." in name:
            for part, value in zip(_PARTS, tensor.chunk(3)):
                theirs[name.replace("qkv", part)] = value.contiguous()
        else:
            theirs[name] = tensor
    return theirs
