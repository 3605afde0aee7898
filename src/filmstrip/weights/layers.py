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


def pair(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    """The rows of a linear layer or a norm: its weight and its bias."""
    return tuple((f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias"))


def layers(theirs: str, ours: str, rows: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The rows of one layer, for all the layers under two prefixes."""
    return tuple((f"{theirs}.{{i}}.{a}", f"{ours}.{{i}}.{b}") for a, b in rows)


def fuse(theirs: Mapping[str, Tensor], parts: Sequence[str] = _PARTS, into: str = "qkv") -> Weights:
    """One layer for each group of ``parts``, by default an attention's ``query``, ``key`` and ``value``.

    Raises:
        UserError: a group lacks one of its parts.
    """
    fused = {}
    for name, tensor in theirs.items():
        prefix, _, kind = name.rpartition(".")
        stem, _, part = prefix.rpartition(".")
        if part not in parts:
            fused[name] = tensor
        elif f"{stem}.{into}.{kind}" not in fused:
            fused[f"{stem}.{into}.{kind}"] = together(theirs, f"{stem}.", f".{kind}", parts)
    return fused


def together(theirs: Mapping[str, Tensor], before: str, after: str, parts: Sequence[str] = _PARTS) -> Tensor:
    """What stands between ``before`` and ``after`` of the ``parts``, in one.

    Raises:
        UserError: one of them is missing.
    """
    names = [f"{before}{part}{after}" for part in parts]
    check_names("this state", [name for name in names if name in theirs], names)
    return torch.cat([theirs[name] for name in names])


def unfuse(
    fused: Mapping[str, Tensor],
    parts: Sequence[str] = _PARTS,
    into: str = "qkv",
    sizes: Sequence[int] | None = None,
) -> Weights:
    """The inverse of :func:`fuse`, of parts with so many outputs each; by default all with equally many."""
    theirs = {}
    for name, tensor in fused.items():
        if f".{into}." in name:
            values = tensor.chunk(len(parts)) if sizes is None else tensor.split(list(sizes))
            for part, value in zip(parts, values, strict=True):
                theirs[name.replace(into, part)] = value.contiguous()
        else:
            theirs[name] = tensor
    return theirs
