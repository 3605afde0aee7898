"""Weights of VideoGPT's published code: the state of its VQ-VAE and of its prior, which holds one.

state = torch.load(FILE, weights_only=False)["state_dict"]  # a Lightning checkpoint: only one that you trust
tokenizer.load_state_dict(from_vqvae(state))
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.weights.keymap import Weights
from filmstrip.weights.positions import side_by_side

# Theirs to ours, tried in order; each may apply to a part of a name.
_VQVAE = (
    (r"^encoder\.convs\.(\d+)\.conv\.", r"autoencoder.down.\1."),
    (r"^encoder\.conv_last\.conv\.", "autoencoder.last."),
    (r"^decoder\.convts\.(\d+)\.convt\.", r"autoencoder.up.\1."),
    (r"^pre_vq_conv\.conv\.", "autoencoder.to_latents."),
    (r"^post_vq_conv\.conv\.", "autoencoder.from_latents."),
    (r"^(encoder|decoder)\.res_stack\.(\d+)\.block\.6\.", r"autoencoder.\1.blocks.\2.norm."),
    (r"^(encoder|decoder)\.res_stack\.(\d+)\.block\.8\.", r"autoencoder.\1.blocks.\2.attention."),
    (r"^(encoder|decoder)\.res_stack\.(\d+)\.block\.(\d+)\.", r"autoencoder.\1.blocks.\2.convs.\3."),
    (r"^(encoder|decoder)\.res_stack\.\d+\.", r"autoencoder.\1.norm."),
    (r"\.conv\.", "."),
    (r"\.attn_t\.", ".time."),
    (r"\.attn_h\.", ".height."),
    (r"\.attn_w\.", ".across."),
    (r"\.fc\.", ".out."),
)
_PRIOR = (
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
    (r"^resnet\.group(\d)\.start_block\.", lambda m: f"frames.stages.{int(m[1]) - 1}.0."),
    (r"^resnet\.group(\d)\.blocks\.(\d+)\.", lambda m: f"frames.stages.{int(m[1]) - 1}.{int(m[2]) + 1}."),
    (r"\.proj_conv\.", ".shortcut.0."),
    (r"\.proj_bnr\.norm\.norm\.", ".shortcut.1."),
    (r"\.bnr(\d)\.norm\.norm\.", r".norm\1."),
)
_ATTENTION = ("w_qs", "w_ks", "w_vs")


def from_vqvae(theirs: Mapping[str, Tensor]) -> Weights:
    """Weights of a :class:`~filmstrip.systems.tokenizers.vqvae3d.VQVAE3D` in its released form.

    Raises:
        UserError: this is not the state of a VQ-VAE.
    """
    _check(theirs, ("codebook.embeddings", "codebook.N", "codebook.z_avg"), "VQ-VAE")
    ours = _fused({_renamed(name, _VQVAE): value for name, value in theirs.items()})
    for name, published in (("codes", "embeddings"), ("size", "N"), ("total", "z_avg")):
        ours[f"bottleneck.{name}"] = ours.pop(f"codebook.{published}")[None]
    return ours


def from_videogpt(theirs: Mapping[str, Tensor]) -> Weights:
    """Weights of a :class:`~filmstrip.systems.generation.videogpt.VideoGPT`, those of its tokenizer included.

    Codes are projected into embeddings of their own, the positions of an axis keep to its third of the channels, and
    a condition's norms have gains of one and biases of zero beside it.

    Raises:
        UserError: this is not the state of a prior.
    """
    positions = [f"attn_stack.pos_embd.emb.d_{axis}" for axis in range(3)]
    _check(theirs, ("attn_stack.right_shift.sos", "fc_in.weight", *positions), "VideoGPT")
    inner = "vqvae."
    tokenizer = from_vqvae({n.removeprefix(inner): w for n, w in theirs.items() if n.startswith(inner)})
    own = {n: w for n, w in theirs.items() if not n.startswith(inner) and not n.endswith(".mask")}
    project, start = own.pop("fc_in.weight"), own.pop("attn_stack.right_shift.sos")
    axes = [own.pop(name) for name in positions]
    ours = {f"tokenizer.{name}": value for name, value in tokenizer.items()}
    ours |= _fused({_renamed(name, _PRIOR): value for name, value in own.items()})
    ours["transformer.embed.weight"] = torch.cat([theirs["vqvae.codebook.embeddings"] @ project.T, start[None]])
    return ours | {f"transformer.positions.{i}": table for i, table in enumerate(side_by_side(axes))}


def _check(theirs: Mapping[str, Tensor], needed: Sequence[str], what: str) -> None:
    if missing := [name for name in needed if name not in theirs]:
        raise UserError(f"this is not the state of the published {what}: it has no {missing[0]}")


def _renamed(name: str, rows: tuple) -> str:
    for theirs, ours in rows:
        name = re.sub(theirs, ours, name)
    return name


def _fused(weights: Weights) -> Weights:
    """Queries, keys and values in one matrix (a context's without the queries), and conditional norms in one."""
    ours = {}
    for name, value in weights.items():
        stem, _, part = name.removesuffix(".weight").rpartition(".")
        if part == "w_qs":
            q, k, v = (weights[f"{stem}.{part}.weight"] for part in _ATTENTION)
            if stem.endswith(".cross"):
                ours |= {f"{stem}.q.weight": q, f"{stem}.kv.weight": torch.cat([k, v])}
            else:
                ours[f"{stem}.qkv.weight"] = torch.cat([q, k, v])
        elif part == "w":
            ours[f"{stem}.from_condition.weight"] = torch.cat([value, weights[f"{stem}.wb.weight"]])
            ours |= {f"{stem}.weight": torch.ones(len(value)), f"{stem}.bias": torch.zeros(len(value))}
        elif part not in (*_ATTENTION, "wb"):
            ours[name] = value
    return ours
