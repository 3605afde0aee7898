"""VIOLET's network: a video Swin, and a transformer over its tokens with a class token for each frame, and text's.

Fu et al., "VIOLET: End-to-End Video-Language Transformers with Masked Visual-token Modeling", 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, ShareBelowOne
from filmstrip.errors import UserError
from filmstrip.models.video_swin import VideoSwin, VideoSwinArchitecture
from filmstrip.nn.attention import Attention
from filmstrip.nn.block import run_blocks
from filmstrip.nn.initialisation import STD, init_linear
from filmstrip.nn.masks import Mask, present
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import IMAGENET_MEAN
from filmstrip.protocols import Features, Grid, Layout, as_float
from filmstrip.weights.keymap import Weights
from filmstrip.weights.layers import fuse, unfuse


@dataclass(frozen=True, kw_only=True)
class VioletArchitecture(VideoSwinArchitecture):
    """The configuration of a :class:`VioletEncoder`."""

    joint_depth: Count
    """Layers of the transformer over the tokens of all frames."""
    joint_num_heads: Count
    """Attention heads of a layer of that transformer."""
    joint_dropout: ShareBelowOne = 0.0
    """Dropout rate in that transformer, and before the head."""
    max_positions: Count = 196
    """Patches of a frame that have an embedding."""
    max_frames: Count = 6
    """Frames that have an embedding."""


class JointBlock(nn.Module):
    """A layer of BERT: attention, then a feed-forward network, each added and then normalised: ``B N D -> B N D``."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.mlp = MLP(width, 4 * width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        """Apply the layer."""
        x = self.norm1(x + self.dropout(self.attention(x, mask=mask)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class VioletEncoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: a video Swin, then a transformer with a class token for each frame.

    The Swin's tubelets overlap, each frame with the next, so that every frame has tokens of its own. ``summary`` are
    the frames' class tokens. Clips may be shorter and smaller than the network was built for.
    """

    def __init__(self, config: VioletArchitecture, *, reads_text: bool = False) -> None:
        super().__init__()
        self.reads_text = reads_text
        self.swin = VideoSwin(config)
        self.width, self.depth = self.swin.width, self.swin.depth + config.joint_depth
        stride = 2 ** (len(config.depths) - 1)
        self.patch_size = (1, config.patch_size[1] * stride, config.patch_size[2] * stride)
        if config.size % self.patch_size[1] or config.size % self.patch_size[2] or config.patch_size[0] != 2:
            raise UserError(
                f"frames of {config.size} pixels and tubelets of {config.patch_size} make no grid: sizes have to be "
                f"multiples of {self.patch_size[1:]}, tubelets two frames long"
            )
        self.grid = Grid(config.num_frames, *(config.size // side for side in self.patch_size[1:]))
        width = self.width
        self.cls_token = nn.Parameter(STD * torch.randn(width))
        self.pos_embed = nn.Parameter(STD * torch.randn(1 + config.max_positions, width))
        self.time_pos_embed = nn.Parameter(STD * torch.randn(config.max_frames, width))
        if config.max_positions < self.grid.h * self.grid.w or config.max_frames < config.num_frames:
            raise UserError(
                f"{config.max_positions} positions and {config.max_frames} frames are too few for a grid of "
                f"{tuple(self.grid)}: raise max_positions or max_frames"
            )
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            JointBlock(width, config.joint_num_heads, config.joint_dropout) for _ in range(config.joint_depth)
        )
        init_linear(self.blocks, config.linear_init)

    def visual(self, video: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Grid]:
        """What the transformer sees of ``B T C H W`` video, ``B T(1+hw) D``, each frame's class token first.

        Patches that are ``masked`` (``B T h w`` bool) are black.
        """
        video = as_float(video)
        if masked is not None:
            _, p, q = self.patch_size
            video = video * ~repeat(masked, "b t h w -> b t 1 (h p) (w q)", p=p, q=q)
        # Behind the last frame there is nothing, which is the mean colour.
        nothing = torch.tensor(IMAGENET_MEAN, device=video.device)[:, None, None].expand_as(video[:, :1])
        after = torch.cat([video[:, 1:], nothing], dim=1)
        said = self.swin(torch.stack([video, after], dim=2).flatten(1, 2))
        t, h, w = said.grid
        tokens = said.tokens.unflatten(1, (t, h * w))
        tokens = torch.cat([self.cls_token.expand(*tokens.shape[:2], 1, -1).to(tokens.dtype), tokens], dim=2)
        tokens = tokens + self.pos_embed[: 1 + h * w] + self.time_pos_embed[:t, None]
        return self.norm(tokens).flatten(1, 2), said.grid

    def forward(self, video: Tensor, layers: bool = False, masked: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; ``layers`` are the transformer's."""
        x, grid = self.visual(video, masked)
        x, seen = run_blocks(self.blocks, x, layers)
        frames = x.unflatten(1, (grid.t, -1))
        patches = tuple(y.unflatten(1, (grid.t, -1))[:, :, 1:].flatten(1, 2) for y in seen)
        return Features(frames[:, :, 1:].flatten(1, 2), grid, patches, frames[:, :, 0])

    def together(self, visual: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        """The last tokens, ``B N+L D``, of what the transformer sees and of text ``B L D`` behind it, of which some
        tokens are ``valid`` (``B L`` bool)."""
        x, valid = self._joined(visual, text, valid)
        mask = present(valid)
        for block in self.blocks:
            x = block(x, mask)
        return x

    @torch.no_grad()
    def attended(self, video: Tensor) -> Tensor:
        """How much each patch is attended to, ``B N``: over layers and asking tokens, the mean over heads."""
        x, grid = self.visual(video)
        total = torch.zeros(x.shape[:2], device=x.device)
        for block in self.blocks:
            total = total + block.attention.weights(x, x.shape[1]).float().mean(dim=1).sum(dim=1)
            x = block(x)
        return total.unflatten(1, (grid.t, -1))[:, :, 1:].flatten(1)

    @torch.no_grad()
    def attended_together(self, visual: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        """The same of all tokens of :meth:`together`, ``B N+L``; padding is neither asked nor asks."""
        x, valid = self._joined(visual, text, valid)
        total, mask = torch.zeros(x.shape[:2], device=x.device), present(valid)
        for block in self.blocks:
            weights = block.attention.weights(x, x.shape[1], valid).float()
            total = total + (weights.mean(dim=1) * valid[:, :, None]).sum(dim=1)
            x = block(x, mask)
        return total

    def _joined(self, visual: Tensor, text: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Both in one, and which of its tokens are no padding."""
        seen = valid.new_ones(visual.shape[:2])
        return torch.cat([visual, text], dim=1), torch.cat([seen, valid], dim=1)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the Swin's, then the transformer's."""
        part, _, rest = name.partition(".")
        if part == "swin":
            return self.swin.depth_of(rest)
        return self.swin.depth + 1 + (int(rest.partition(".")[0]) if part == "blocks" else 0)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' pretraining, of which the text is left out if the network reads none."""
        (swin,) = self.swin.layouts()
        text = () if self.reads_text else TEXT_ALONE
        return (
            Layout(
                name="VIOLET",
                rules=_PUBLISHED,
                after=(r"fc_mvm\..*", *TEXT_ALONE),
                spare=(*swin.spare, r".*\.position_ids", *text),
                absent=(r"target\..*",),
                to_ours=swin.to_ours,
                to_theirs=swin.to_theirs,
                unpack=_unpacked,
                pack=_packed,
            ),
        )


_PUBLISHED = (
    (r"^encoder\.swin\.embed_norm\.", "enc_img.swin.patch_embed.norm."),
    (r"^encoder\.swin\.embed\.", "enc_img.swin.patch_embed."),
    (r"^encoder\.swin\.stages\.(\d+)\.(.*)\.attention\.relative\.bias$", r"enc_img.swin.layers.\1.\2.attn.@"),
    (r"^encoder\.swin\.stages\.(\d+)\.(.*)\.attention\.out\.", r"enc_img.swin.layers.\1.\2.attn.proj."),
    (r"^encoder\.swin\.stages\.(\d+)\.(.*)\.attention\.", r"enc_img.swin.layers.\1.\2.attn."),
    (r"^encoder\.swin\.stages\.", "enc_img.swin.layers."),
    (r"\.attn\.@$", ".attn.relative_position_bias_table"),
    (r"^encoder\.swin\.merges\.(\d+)\.reduce\.", r"enc_img.swin.layers.\1.downsample.reduction."),
    (r"^encoder\.swin\.merges\.(\d+)\.norm\.", r"enc_img.swin.layers.\1.downsample.norm."),
    (r"^encoder\.swin\.", "enc_img.swin."),
    (r"^encoder\.cls_token$", "enc_img.emb_cls"),
    (r"^encoder\.pos_embed$", "enc_img.emb_pos"),
    (r"^encoder\.time_pos_embed$", "enc_img.emb_len"),
    (r"^encoder\.norm\.", "enc_img.norm."),
    (r"^encoder\.blocks\.(\d+)\.attention\.qkv\.", r"trsfr.layer.\1.attention.self.qkv."),
    (r"^encoder\.blocks\.(\d+)\.attention\.out\.", r"trsfr.layer.\1.attention.output.dense."),
    (r"^encoder\.blocks\.(\d+)\.norm1\.", r"trsfr.layer.\1.attention.output.LayerNorm."),
    (r"^encoder\.blocks\.(\d+)\.mlp\.fc1\.", r"trsfr.layer.\1.intermediate.dense."),
    (r"^encoder\.blocks\.(\d+)\.mlp\.fc2\.", r"trsfr.layer.\1.output.dense."),
    (r"^encoder\.blocks\.(\d+)\.norm2\.", r"trsfr.layer.\1.output.LayerNorm."),
    (r"^head\.", "fc_mvm."),
    (r"^text\.embed\.", "enc_txt.emb_txt.word_embeddings."),
    (r"^text\.pos_embed$", "enc_txt.emb_txt.position_embeddings.weight"),
    (r"^text\.norm\.", "enc_txt.emb_txt.LayerNorm."),
    (r"^match_head\.", "fc."),
    (r"^words\.fc\.", "fc_mtm.predictions.transform.dense."),
    (r"^words\.norm\.", "fc_mtm.predictions.transform.LayerNorm."),
    (r"^words\.bias$", "fc_mtm.predictions.bias"),
    (r"^word_weight$", "fc_mtm.predictions.decoder.weight"),
)
"""Ours to theirs."""
TEXT_ALONE = (r"enc_txt\..*", r"fc\..*", r"fc_mtm\..*")
"""Patterns of their names of what reads text."""
_TYPES = "enc_txt.emb_txt.token_type_embeddings.weight"
"""Their embedding of kinds of tokens, of which there is one: it joins the positions."""


def _unpacked(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """One matrix of queries, keys and values; tokens and positions without leading axes of one."""
    state = fuse(file)
    for name in ("enc_img.emb_cls", "enc_img.emb_pos", "enc_img.emb_len"):
        if name in state:
            state[name] = state[name].squeeze()
    if (types := state.pop(_TYPES, None)) is not None:
        positions = "enc_txt.emb_txt.position_embeddings.weight"
        state[positions] = state[positions] + types[0]
    state.pop("fc_mtm.predictions.decoder.bias", None)  # the same as fc_mtm.predictions.bias
    return state


def _packed(state: Mapping[str, Tensor]) -> Weights:
    """The inverse."""
    swin = {name: value for name, value in state.items() if ".swin." in name}
    file = unfuse({name: value for name, value in state.items() if name not in swin}) | swin
    axes = {"enc_img.emb_cls": (1, 1, 1, -1), "enc_img.emb_len": (1, -1, 1, file["enc_img.norm.bias"].shape[0])}
    if "enc_txt.emb_txt.LayerNorm.bias" in file:
        file |= {_TYPES: torch.zeros(2, file["enc_txt.emb_txt.LayerNorm.bias"].shape[0])}
        file |= {"fc_mtm.predictions.decoder.bias": file["fc_mtm.predictions.bias"]}
    axes["enc_img.emb_pos"] = (1, 1, -1, file["enc_img.norm.bias"].shape[0])
    return file | {name: file[name].reshape(shape) for name, shape in axes.items()}
