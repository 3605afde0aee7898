"""UniFormerV2: an image ViT (CLIP's) that is armed for video, its own weights and its view of a frame kept.

Before and after a block's attention within frames, a position mixes with itself in the frames beside (local temporal
relations, zero at first); beside the last blocks a video token looks at all positions of all frames. Li et al.,
"UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video UniFormer", ICCV 2023.

    filmstrip train recognition.uniformer_v2:b16_16_ssv2 --data.path PATH

As in the published configurations, the Kinetics presets leave the local temporal relations out, where scenes give
actions away, and look four times; those for Something-Something have them, and look 8 or 16 times. Where we deviate:
one learning rate schedule from CLIP's weights (published L/14 passes through Kinetics-710); whole-clip RandAugment.
``--init FILE`` reads the authors' files, and InternVideo's of video and text.

The public results are, Kinetics-400 (top-1, 8 frames, 4 clips x 3 crops): B/16 84.4, with Kinetics-710 B/16 85.6 and
L/14 88.8; Something-Something V2 (16 frames, 3 crops): B/16 69.5, L/14 72.1.

Measured here (``filmstrip claims uniformer_v2_arming``, mean of three seeds): arming changes no frame's class token
at first; after as many steps, an image network's average over frames names 25.3% of four motions, with local blocks
99.8, with global ones 24.8, with both 90.2 (chance is 25).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.nn.attention import Attention
from filmstrip.nn.conv import channels_first
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import LinearInit, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD, Normalise
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Features, Grid, Layout, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


class LocalTemporal(nn.Sequential):
    """Relations of each position to itself in neighbouring frames: a depthwise convolution between linear maps.

    Li et al. 2022 (UniFormerV2), equation 4.
    """

    def __init__(self, width: int, reduction: float) -> None:
        inner = int(width / reduction)
        super().__init__(
            nn.BatchNorm3d(width),
            nn.Conv3d(width, inner, 1),
            nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner),
            nn.Conv3d(inner, width, 1),
        )


class LocalUniBlock(nn.Module):
    """A block of an image ViT over each frame's tokens, with local temporal relations before attention and after.

    ``reduction`` says how much narrower those are inside; without it they are left out.
    """

    def __init__(self, width: int, num_heads: int, *, reduction: float | None, drop_path: float = 0.0) -> None:
        super().__init__()
        self.before, self.after = (None if reduction is None else LocalTemporal(width, reduction) for _ in range(2))
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, gelu="quick")
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B T) 1+N D`` to the same; a frame's first token is its class token."""
        x = self._over_time(x, self.before, grid)
        x = x + self.drop_path(self.attention(self.norm1(x)))
        x = self._over_time(x, self.after, grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _over_time(self, x: Tensor, relations: LocalTemporal | None, grid: Grid) -> Tensor:
        if relations is None:
            return x
        first, rest = x[:, :1], rearrange(x[:, 1:], "(b t) (h w) d -> b d t h w", t=grid.t, h=grid.h)
        rest = rest + self.drop_path(relations(rest))
        return torch.cat([first, rearrange(rest, "b d t h w -> (b t) (h w) d")], dim=1)


class GlobalUniBlock(nn.Module):
    """Attention of a video token to all positions of all frames, then a feed-forward network: ``B 1 D``.

    Equations 6 to 9. Positional embeddings come from a depthwise convolution.
    """

    def __init__(self, width: int, num_heads: int, *, dropout: float, drop_path: float = 0.0) -> None:
        super().__init__()
        self.positions = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, context_width=width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, gelu="quick", dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, token: Tensor, x: Tensor, grid: Grid) -> Tensor:
        """``B 1 D`` and the frames' tokens ``(B T) 1+N D`` to ``B 1 D``."""
        patches = rearrange(x[:, 1:], "(b t) (h w) d -> b d t h w", t=grid.t, h=grid.h)
        patches = rearrange(patches + self.positions(patches), "b d t h w -> (b t) (h w) d")
        context = rearrange(torch.cat([x[:, :1], patches], dim=1), "(b t) n d -> b (t n) d", t=grid.t)
        token = token + self.drop_path(self.attention(self.norm1(token), context=self.norm_context(context)))
        return token + self.drop_path(self.mlp(self.norm2(token)))


class UniFormerV2(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` out of an image ViT in CLIP's form, whose class token is the clip's.

    After some of its blocks a video token looks at the tokens; a learnt gate for each channel mixes it with the
    frames' mean class token.
    """

    def __init__(self, config: UniFormerV2Config) -> None:
        super().__init__()
        self.width = width = config.width
        self.depth = depth = config.depth
        self.size = config.size
        self.global_layers = config.global_layers
        self.normalise = Normalise(CLIP_MEAN, CLIP_STD)
        patch = (config.patch_size, config.patch_size)
        frames, stride = (3, 2) if config.halve_time else (1, 1)
        self.patch = (stride, *patch)
        self.embed = nn.Conv3d(3, width, (frames, *patch), self.patch, (frames // 2, 0, 0), bias=False)
        count = (config.size // config.patch_size) ** 2
        self.frame_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + count, width) * width**-0.5)
        self.norm_before = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            LocalUniBlock(
                width,
                config.num_heads,
                reduction=config.reduction,
                drop_path=config.drop_path * i / max(1, depth - 1),
            )
            for i in range(depth)
        )
        count = len(self.global_layers)
        self.video_token = nn.Parameter(torch.zeros(width))
        self.global_blocks = nn.ModuleList(
            GlobalUniBlock(
                width,
                config.num_heads,
                dropout=config.dropout,
                drop_path=config.global_drop_path * i / max(1, count - 1),
            )
            for i in range(count)
        )
        self.balance = nn.Parameter(torch.zeros(width))
        init_linear(self, config.linear_init)
        if config.start_as_image:
            added = [layer for block in self.global_blocks for layer in (block.attention.out, block.mlp.fc2)]
            local = [block for block in self.modules() if isinstance(block, LocalTemporal)]
            for layer in [*added, *(block[-1] for block in local)]:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; the tokens are the patches', without the frames' class tokens.

        Raises:
            ValueError: the frames are not of the size that the network was built for, or not a multiple of two.
        """
        check_video(video, multiple=self.patch)
        if video.shape[3:] != (self.size, self.size):
            raise ValueError(f"this network was built for frames of {self.size} pixels, got {tuple(video.shape[3:])}")
        x = self.embed(channels_first(self.normalise(video)))
        grid = Grid(*x.shape[2:])
        x = rearrange(x, "b d t h w -> (b t) (h w) d")
        x = torch.cat([repeat(self.frame_token, "d -> b 1 d", b=x.shape[0]), x], dim=1)
        x = self.norm_before(x + self.positions)
        token = self.video_token.repeat(video.shape[0], 1, 1)
        looks = dict(zip(self.global_layers, self.global_blocks))
        seen = []
        for i, block in enumerate(self.blocks):
            x = block(x, grid)
            if i in looks:
                token = looks[i](token, x, grid)
            if layers:
                seen.append(rearrange(x[:, 1:], "(b t) n d -> b (t n) d", t=grid.t))
        gate = self.balance.sigmoid()
        frames = rearrange(x[:, 0], "(b t) d -> b t d", t=grid.t).mean(dim=1)
        tokens = rearrange(x[:, 1:], "(b t) n d -> b (t n) d", t=grid.t)
        return Features(tokens, grid, tuple(seen), ((1 - gate) * token[:, 0] + gate * frames)[:, None])

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the embedding, ``i + 1`` for block ``i`` and the global one after it."""
        if match := re.match(r"blocks\.(\d+)\.", name):
            return int(match[1]) + 1
        if match := re.match(r"global_blocks\.(\d+)\.", name):
            return self.global_layers[int(match[1])] + 1
        return self.depth + 1 if name in ("video_token", "balance") else 0

    def layouts(self) -> tuple[Layout, ...]:
        """The authors', and that of InternVideo's encoder of video and text, whose text is left out."""
        after = (r"backbone\.transformer\.proj\.2\..*",)
        same = {"to_ours": _part, "to_theirs": _with_axes}
        return (
            Layout(name="UniFormerV2", rules=_PUBLISHED, after=after, **same),
            Layout(name="InternVideo", rules=_WITH_TEXT, after=_TEXT, unpack=_of_pair, **same),
        )


_PUBLISHED = (
    (r"^encoder\.", ""),
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
"""Ours to theirs."""
_WITH_TEXT = tuple((pattern, name.replace("backbone.", "visual.")) for pattern, name in _PUBLISHED)
"""The same within a model of video and text."""
_TEXT = (
    r"visual_(?:ln_post|proj).*",
    r"transformer\..*",
    r"(?:token|positional|text_mask)_embedding.*",
    r"ln_final\..*",
    r"text_projection",
    r"logit_scale",
)


def _of_pair(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model of video and text out of what it was trained in."""
    state = file.get("state_dict", file)
    own = {key.removeprefix("clip."): value for key, value in state.items() if key.startswith("clip.")}
    return own or state


def _part(name: str, theirs: Tensor) -> Tensor:
    """Queries, or keys and values, of what holds all three there."""
    if match := re.search(r"\.attention\.(q|kv)\.", name):
        width = len(theirs) // 3
        return theirs[:width] if match[1] == "q" else theirs[width:]
    return theirs


def _with_axes(name: str, ours: Tensor) -> Tensor:
    """The video token is ``1 1 D`` there."""
    return ours[None, None] if name.endswith("video_token") else ours


@dataclass(frozen=True, kw_only=True)
class UniFormerV2Config(ClassificationConfig):
    """A UniFormerV2 with a normalised linear classifier."""

    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    patch_size: Count
    """Height and width of a patch, pixels."""
    size: Count
    """Height and width of a clip, pixels."""
    global_layers: tuple[CountOrZero, ...]
    """Blocks after which the video token attends to all tokens, counted from 0."""
    reduction: Rate | None = None
    """Width of the network relative to that of its local temporal relations; none without such relations."""
    halve_time: bool = False
    """Whether every second frame is embedded, together with its neighbours."""
    start_as_image: bool = True
    """Whether the layers added to the image network start at zero; slow where that network is not pretrained."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    global_drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last global block."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate before the head and in the global blocks."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(UniFormerV2(self), self, norm=True, norm_eps=1e-5)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=UniFormerV2Config(
            width=64,
            depth=3,
            num_heads=2,
            patch_size=8,
            size=64,
            global_layers=(1, 2),
            reduction=1.5,
            halve_time=True,
            start_as_image=False,
            linear_init="glorot",
            num_classes=8,
        ),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


B16 = UniFormerV2Config(
    width=768,
    depth=12,
    num_heads=12,
    patch_size=16,
    size=224,
    global_layers=tuple(range(4, 12)),
    reduction=1.5,
    halve_time=True,
    drop_path=0.2,
    global_drop_path=0.4,
    dropout=0.5,
    num_classes=400,
)
L14 = replace(B16, width=1024, depth=24, num_heads=16, patch_size=14, global_layers=tuple(range(8, 24)))


def _k400(network: UniFormerV2Config, *, lr: float) -> Run:
    """Kinetics-400 for 55 epochs from CLIP's weights: 8 frames, one from each of 8 segments."""
    plain = replace(network, reduction=None, halve_time=False, drop_path=0.0, global_drop_path=0.0)
    last = tuple(range(network.depth - 4, network.depth))
    return Run(
        data=Data(
            clip=Clip(num_frames=8, sampling="segments", crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(rand_ops=4, rand_magnitude=7.0),
            batch_size=256,
            num_workers=10,
        ),
        objective=replace(plain, global_layers=last),
        optim=AdamW(lr=lr, weight_decay=0.05, schedule=Cosine(warmup=5 / 55, final=1e-6 / lr)),
        train=Loop(length=Epochs(55), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=4, num_crops=3),),
    )


def _ssv2(network: UniFormerV2Config, *, lr: float) -> Run:
    """Something-Something V2 for 22 epochs from CLIP's weights: 16 frames."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, sampling="segments", crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(mirror=0.0, rand_ops=4, rand_magnitude=7.0),
            batch_size=128,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=replace(network, num_classes=174),
        optim=AdamW(lr=lr, weight_decay=0.05, schedule=Cosine(warmup=5 / 22, final=1e-6 / lr)),
        train=Loop(length=Epochs(22), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )


def b16_8_k400() -> Run:
    """B/16 on Kinetics-400, 8 frames: 114.6M parameters, 148 G multiply-adds."""
    return _k400(B16, lr=1e-5)


def l14_8_k400() -> Run:
    """L/14 on Kinetics-400, 8 frames: 354.1M parameters, 666 G multiply-adds."""
    return _k400(L14, lr=1e-5)


def b16_16_ssv2() -> Run:
    """B/16 on Something-Something V2, 16 frames, half of them embedded: 163.0M parameters, 187 G multiply-adds."""
    return _ssv2(B16, lr=4e-5)


def l14_16_ssv2() -> Run:
    """L/14 on Something-Something V2, 16 frames, half of them embedded: 574.0M parameters, 858 G multiply-adds."""
    return _ssv2(L14, lr=2e-5)
