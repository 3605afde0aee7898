"""The state of the prior of VideoGPT's published code in our names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from filmstrip.weights.keymap import Rules, Weights, check_names, renamed
from filmstrip.weights.layers import together
from filmstrip.weights.positions import side_by_side

_PUBLISHED: Rules = (
    (r"^attn_stack\.attn_nets\.", "transformer.blocks."),
    (r"^norm\.", "transformer.norm."),
    (r"^fc_out\.", "transformer.head."),
    (r"\.pre_attn_norm\.", ".norm1."),
    (r"\.pre_enc_norm\.", ".norm_context."),
    (r"\.pre_fc_norm\.", ".norm2."),
    (r"\.enc_attn\.", ".cross."),
    (r"\.attn\.", ".attention."),
    (r"\.fc_block\.0\.", ".mlp.fc1."),
    (r"\.fc_block\.2\.", ".mlp.fc2."),
    (r"\.fc\.", ".out."),
    (r"\.g$", ".weight"),
    (r"\.b$", ".bias"),
    (r"^cond_pos_embd\.emb\.d_", "frames.positions.axes."),
    (r"^resnet\.stem\.0\.", "frames.stem."),
    (r"^resnet\.stem\.1\.norm\.norm\.", "frames.norm."),
    (r"\.proj_conv\.", ".shortcut.0."),
    (r"\.proj_bnr\.norm\.norm\.", ".shortcut.1."),
    (r"\.bnr(\d)\.norm\.norm\.", r".norm\1."),
)
"""Names of the published prior to ours, in order; each may apply to a part of a name."""
_POSITIONS = tuple(f"attn_stack.pos_embd.emb.d_{axis}" for axis in range(3))
_START, _PROJECT = "attn_stack.right_shift.sos", "fc_in.weight"
_ATTENTION = ("w_qs", "w_ks", "w_vs")


def from_prior(theirs: Mapping[str, Tensor], codes: Tensor) -> Weights:
    """Weights of a VideoGPT but for its tokenizer, whose ``codes`` (``K D``) theirs projects.

    Codes are projected into embeddings of their own, the positions of an axis keep to its third of the channels, and
    a condition's norms have gains of one and biases of zero beside it.

    Raises:
        UserError: this is not the state of a prior.
    """
    apart = (_START, _PROJECT, *_POSITIONS)
    check_names("this is not the state of the published VideoGPT: it", theirs, apart, spare=(".*",))
    rest = {name: w for name, w in theirs.items() if name not in apart and not name.endswith(".mask")}
    ours = _fused({renamed(_of_stages(name), _PUBLISHED): value for name, value in rest.items()})
    ours["transformer.embed.weight"] = torch.cat([codes @ theirs[_PROJECT].T, theirs[_START][None]])
    tables = side_by_side([theirs[name] for name in _POSITIONS])
    return ours | {f"transformer.positions.{i}": table for i, table in enumerate(tables)}


def _of_stages(name: str) -> str:
    """A name whose stages and blocks of the residual network are counted from zero."""
    block = re.match(r"resnet\.group(\d)\.(?:start_block|blocks\.(\d+))\.(.*)", name)
    if block is None:
        return name
    stage, place, rest = block.groups()
    return f"frames.stages.{int(stage) - 1}.{0 if place is None else int(place) + 1}.{rest}"


def _fused(weights: Weights) -> Weights:
    """Queries, keys and values in one matrix (a context's without the queries), and conditional norms in one."""
    ours = {}
    for name, value in weights.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        if part == "w_qs" and stem.endswith(".cross"):
            keys_and_values = together(weights, f"{stem}.", ".weight", _ATTENTION[1:])
            ours |= {f"{stem}.q.weight": value, f"{stem}.kv.weight": keys_and_values}
        elif part == "w_qs":
            ours[f"{stem}.qkv.weight"] = together(weights, f"{stem}.", ".weight", _ATTENTION)
        elif part == "w":
            ours[f"{stem}.from_condition.weight"] = together(weights, f"{stem}.", ".weight", ("w", "wb"))
            ours |= {f"{stem}.weight": torch.ones(len(value)), f"{stem}.bias": torch.zeros(len(value))}
        elif part not in (*_ATTENTION, "wb"):
            ours[name] = value
    return ours
