"""Released weights of MViT, MeMViT, Video Swin, UniFormer and UniFormerV2, in the layouts of their own code.

MViT's and MeMViT's are the SlowFast code base's (``blocks.0.attn.pool_q.weight``), Video Swin's is MMAction2's
(``backbone.layers.0.blocks.0.attn.qkv.weight``), the UniFormers' are their own. The numbers are the same but that a
projection of patches is a convolution there and that Swin's biases lie in one table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.memvit import MeMViT
from filmstrip.models.mvit import MViT
from filmstrip.models.uniformer import UniFormer
from filmstrip.models.uniformer_v2 import UniFormerV2
from filmstrip.models.video_swin import VideoSwin
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.objectives.classification import Classification
from filmstrip.weights.keymap import COUNTERS, Rules, Weights, check_names, renamed

NETWORKS = (MViT, VideoSwin, UniFormer, UniFormerV2)
_CONSTANT = (r".*\.relative_position_index", r".*\.attn_mask")
"""What Swin's files hold beside weights: it follows from the sizes."""
_HEADS = (r"(?:cls_)?head\..*", r"backbone\.transformer\.proj\.2\..*")
"""Classifiers, left out when only the encoder is loaded."""
_FORGETFUL = r"blocks\.(?!(?:{})\.)\d+\.attn\.(?:(?:norm_)?compress_[kv]\..*|rel_pos_mem_[thw])"
"""MeMViT's files hold parameters of memory in every layer, also in those that have none."""
_UNDER = ("model_state", "state_dict", "model")

# Ours (without "encoder.") to theirs, tried in order; each may apply to a part of a name.
_MVIT = (
    (r"^embed\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^place_positions$", "pos_embed_spatial"),
    (r"^time_positions$", "pos_embed_temporal"),
    (r"^class_position$", "pos_embed_class"),
    (r"\.attention\.(pool|compress)_([qkv])\.conv\.", r".attn.\1_\2."),
    (r"\.attention\.pool_([qkv])\.norm\.", r".attn.norm_\1."),
    (r"\.attention\.compress_([kv])\.norm\.", r".attn.norm_compress_\1."),
    (r"\.attention\.positions\.time$", ".attn.rel_pos_t"),
    (r"\.attention\.positions\.height$", ".attn.rel_pos_h"),
    (r"\.attention\.positions\.across$", ".attn.rel_pos_w"),
    (r"\.attention\.memory_time$", ".attn.rel_pos_mem_t"),
    (r"\.attention\.memory_height$", ".attn.rel_pos_mem_h"),
    (r"\.attention\.memory_across$", ".attn.rel_pos_mem_w"),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.widen\.", ".proj."),
    (r"^head\.", "head.projection."),
)
_SWIN = (
    (r"^embed\.", "backbone.patch_embed."),
    (r"^embed_norm\.", "backbone.patch_embed.norm."),
    (r"^stages\.", "backbone.layers."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.relative\.bias$", ".attn.relative_position_bias_table"),
    (r"\.attention\.", ".attn."),
    (r"^merges\.(\d+)\.reduce\.", r"backbone.layers.\1.downsample.reduction."),
    (r"^merges\.(\d+)\.norm\.", r"backbone.layers.\1.downsample.norm."),
    (r"^norm\.", "backbone.norm."),
    (r"^head\.", "cls_head.fc_cls."),
)
_UNIFORMER = (
    (r"^stages\.0\.", "1."),
    (r"^stages\.1\.", "2."),
    (r"^stages\.2\.", "3."),
    (r"^stages\.3\.", "4."),
    (r"^(\d)\.shrink\.conv\.", r"patch_embed\1.proj."),
    (r"^(\d)\.shrink\.norm\.", r"patch_embed\1.norm."),
    (r"^(\d)\.blocks\.", r"blocks\1."),
    (r"\.positions\.", ".pos_embed."),
    (r"\.values\.", ".conv1."),
    (r"\.affinity\.", ".attn."),
    (r"\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.out\.", ".conv2."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.2\.", ".mlp.fc2."),
)
_UNIFORMER_V2 = (
    (r"^embed\.", "backbone.conv1."),
    (r"^frame_token$", "backbone.class_embedding"),
    (r"^positions$", "backbone.positional_embedding"),
    (r"^norm_before\.", "backbone.ln_pre."),
    (r"^video_token$", "backbone.transformer.temporal_cls_token"),
    (r"^balance$", "backbone.transformer.balance"),
    (r"^global_blocks\.(\d+)\.positions\.", r"backbone.transformer.dpe.\1."),
    (r"^global_blocks\.", "backbone.transformer.dec."),
    (r"^blocks\.", "backbone.transformer.resblocks."),
    (r"\.before\.", ".lmhra1.pos_embed."),
    (r"\.after\.", ".lmhra2.pos_embed."),
    (r"\.attention\.(?:qkv|q|kv)\.", ".attn.in_proj_"),
    (r"\.attention\.out\.", ".attn.out_proj."),
    (r"\.norm1\.", ".ln_1."),
    (r"\.norm2\.", ".ln_2."),
    (r"\.norm_context\.", ".ln_3."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^norm\.", "backbone.transformer.proj.0."),
    (r"^head\.", "backbone.transformer.proj.2."),
)


def from_published(theirs: Mapping[str, Tensor], objective: Classification, *, head: bool = True) -> Weights:
    """Weights of ``objective`` (without ``head``: of its encoder) from a released state, or from what its file holds.

    Raises:
        UserError: names that this network needs are missing, or there are others, as of another network or size.
    """
    for key in _UNDER:
        theirs = theirs.get(key, theirs)
    names = published_names(objective)
    if not head:
        names = {name: key for name, key in names.items() if name.startswith("encoder.")}
    encoder = objective.encoder
    what = f"this is not a released {type(encoder).__name__} of this size: the file"
    spare = (*_CONSTANT, *([] if head else _HEADS))
    if isinstance(encoder, MeMViT):
        spare += (_FORGETFUL.format("|".join(map(str, encoder.memory_layers))),)
    check_names(what, theirs, names.values(), spare=spare, optional=(COUNTERS,))
    return {name: _ours(name, theirs[key], encoder) for name, key in names.items() if key in theirs}


def to_published(objective: Classification) -> Weights:
    """The inverse of :func:`from_published`."""
    state, encoder = objective.state_dict(), objective.encoder
    theirs: Weights = {}
    for name, key in published_names(objective).items():
        tensor = _theirs(name, state[name], encoder)
        theirs[key] = torch.cat([theirs[key], tensor]) if key in theirs else tensor
    return theirs


def published_names(objective: Classification) -> dict[str, str]:
    """Ours to theirs, for all that is saved but the normalisation of pixels."""
    rules = _rules(objective)
    names = [name for name in objective.state_dict() if ".normalise." not in name]
    return {name: renamed(name.removeprefix("encoder."), rules) for name in names}


def _rules(objective: Classification) -> Rules:
    kinds = zip(NETWORKS, (_MVIT, _SWIN, _UNIFORMER, _UNIFORMER_V2))
    return next(rules for network, rules in kinds if isinstance(objective.encoder, network))


def _ours(name: str, tensor: Tensor, encoder: object) -> Tensor:
    if isinstance(encoder, VideoSwin) and name.endswith("embed.proj.weight"):
        return conv_to_linear(tensor)
    if name.endswith("relative.bias"):
        t, h, w = (2 * n - 1 for n in encoder.window)
        if len(tensor) != t * h * w:
            raise UserError(
                f"the file's windows have {len(tensor)} offsets, those of {encoder.window} have {t * h * w}"
            )
        return rearrange(tensor, "(t h w) n -> n t h w", t=t, h=h, w=w)
    if isinstance(encoder, UniFormerV2):
        if name.endswith("video_token"):
            return tensor.flatten()
        if match := re.search(r"\.attention\.(q|kv)\.", name):
            width = len(tensor) // 3
            return tensor[:width] if match[1] == "q" else tensor[width:]
    return tensor


def _theirs(name: str, tensor: Tensor, encoder: object) -> Tensor:
    if isinstance(encoder, VideoSwin) and name.endswith("embed.proj.weight"):
        return linear_to_conv(tensor, encoder.patch_size)
    if name.endswith("relative.bias"):
        return rearrange(tensor, "n t h w -> (t h w) n")
    if isinstance(encoder, UniFormerV2) and name.endswith("video_token"):
        return tensor[None, None]
    return tensor


def inflate_swin(flat: Mapping[str, Tensor], network: VideoSwin) -> Weights:
    """Weights for ``network`` from those of a 2D Swin (``layers.0.blocks.0.attn.qkv.weight``), all but the head's.

    Liu et al. 2022, section 3.3: the projection of patches is repeated over the frames of a patch and divided by
    their number, the biases of offsets are repeated over time, and resized where windows differ. Of a still video
    each place then sees what it sees in a frame.

    Raises:
        UserError: names that the network needs are missing, there are others, or a tensor has a shape that does not
            fit.
    """
    for key in _UNDER:
        flat = flat.get(key, flat)
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("embed.normalise.")}
    names = {name: renamed(name, _SWIN).removeprefix("backbone.") for name in state}
    what = "this is not a 2D Swin of this size: the file"
    check_names(what, flat, names.values(), spare=(*_CONSTANT, *_HEADS))
    inflated = {}
    for name, wanted in state.items():
        key, tensor = names[name], flat[names[name]]
        if name == "embed.proj.weight":
            frames = network.patch_size[0]
            tensor = conv_to_linear(tensor[:, :, None].repeat(1, 1, frames, 1, 1) / frames)
        elif name.endswith("relative.bias"):
            side = round(len(tensor) ** 0.5)
            table = rearrange(tensor, "(h w) n -> n 1 h w", h=side)
            if table.shape[2:] != wanted.shape[2:]:
                table = F.interpolate(table, size=wanted.shape[2:], mode="bicubic")
            tensor = table.expand(-1, wanted.shape[1], -1, -1).contiguous()
        if tensor.shape != wanted.shape:
            raise UserError(f"{key} is {tuple(tensor.shape)} there, which does not make {tuple(wanted.shape)} here")
        inflated[name] = tensor
    return inflated
