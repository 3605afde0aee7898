"""ViViT: a clip's tubelets in a transformer, with four ways to tell space from time.

``joint``: every tubelet attends to every other; ``factorised_encoder``: frames apart, then their class tokens over
time; ``factorised``: each block attends within frames, then over time; ``factorised_heads``: half of the heads do the
one, half the other. Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021. ``base_k400_frozen`` is the recipe
of Gowda et al., "Optimizing ViViT Training: Time and Memory Reduction for Action Recognition", 2023: frames apart are
not trained, time starts from the image's last layers, and a compact adapter lies between.

    filmstrip train recognition.vivit:base_k400 --init hf:google/vit-base-patch16-224-in21k --data.path PATH
    filmstrip train recognition.vivit:base_k400_frozen --init hf:google/vit-base-patch16-224-in21k --data.path PATH

Where we deviate: colour is jittered one property after another, and never dropped; short sides of 256 to 340 pixels
stand for scales of 0.9 to 1.33. Of the frozen recipe only its abstract is at hand: the adapter here is one narrow
attention from a frame's class token to its tokens, and time's layers start as the image's last ones.

The lecture prints two costs for the factorised encoder; ours comes from counting. The paper reports for Kinetics-400
(top-1): L, factorised encoder, 128 frames, 81.7 from ImageNet-21K and 83.5 from JFT, H, 84.9; the recipe's abstract,
about half of the training cost for accuracies up to 1.79 higher. Measured here (width 384, 32 frames, one thread,
``filmstrip claims vivit_frozen_spatial``): freezing saves 65% of a step and 48% of its memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.video_transformer import (
    JOINT,
    BlockKind,
    FactorisedEncoder,
    FrameTransformer,
    SpaceTimeTransformer,
    TransformerArchitecture,
    blocks_of,
    layer_of,
    start,
)
from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.block import Block, run_blocks
from filmstrip.nn.masks import Mask
from filmstrip.nn.mlp import GELU
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.objectives.config import FrozenPart
from filmstrip.protocols import Grid
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW
from filmstrip.train.schedules import Cosine


class FactorisedBlock(Block):
    """Attention within each frame, then over time at each position, then the feed-forward network: ``B N D``.

    Arnab et al. 2021 (ViViT, model 3). Time's attention starts at zero, so that the block starts as an image's.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        gelu: GELU = "exact",
    ) -> None:
        super().__init__(width, num_heads, mlp_ratio=mlp_ratio, drop_path=drop_path, norm_eps=norm_eps, gelu=gelu)
        self.time_norm = nn.LayerNorm(width, eps=norm_eps)
        self.time_attention = Attention(width, num_heads)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens on a grid of ``N = t * h * w`` positions."""
        frames = rearrange(x, "b (t p) d -> (b t) p d", t=grid.t)
        frames = frames + self.drop_path(self.attention(self.norm1(frames)))
        along = rearrange(frames, "(b t) p d -> (b p) t d", t=grid.t)
        along = along + self.drop_path(self.time_attention(self.time_norm(along)))
        x = rearrange(along, "(b p) t d -> b (t p) d", b=x.shape[0])
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FactorisedHeads(Attention):
    """Attention of which half the heads see a token's position at all times, and half its frame.

    Arnab et al. 2021 (ViViT, model 4, factorised dot-product attention): no more weights than joint attention.

    Raises:
        ValueError: the number of heads is odd.
    """

    def __init__(self, width: int, num_heads: int, *, time: int) -> None:
        super().__init__(width, num_heads)
        if num_heads % 2:
            raise ValueError(f"{num_heads} heads cannot be halved between time and space")
        self.time = time
        """Length of the grid's first axis."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None = None, offset: int | Tensor = 0) -> Tensor:
        """The output of each head, ``B H N D``: of the first half over time, of the second over space."""
        (b, _, _, _), t = q.shape, self.time
        along, across = zip(*(x.chunk(2, dim=1) for x in (q, k, v)))
        along = attend(*(rearrange(x, "b h (t p) d -> (b p) h t d", t=t) for x in along))
        across = attend(*(rearrange(x, "b h (t p) d -> (b t) h p d", t=t) for x in across))
        along = rearrange(along, "(b p) h t d -> b h (t p) d", b=b)
        return torch.cat([along, rearrange(across, "(b t) h p d -> b h (t p) d", b=b)], dim=1)


class HeadsBlock(Block):
    """A block with factorised heads: ``B N D -> B N D``."""

    def __init__(self, width: int, num_heads: int, *, time: int, **options: float | str) -> None:
        super().__init__(width, num_heads, **options)
        self.attention = FactorisedHeads(width, num_heads, time=time)


class RegionAdapter(nn.Module):
    """A narrow attention from a frame's class token to the frame's tokens, before those over time.

    Starts as the identity.
    """

    def __init__(self, width: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, head_dim=head_dim, context_width=width)
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """``B 1+p D -> B D``, the class token first."""
        normalised = self.norm(frames)
        return frames[:, 0] + self.attention(normalised[:, :1], context=normalised[:, 1:])[:, 0]


class TemporalTransformer(nn.Module):
    """A class token, learned positions and pre-norm blocks over a clip's steps: ``B t D -> B 1+t D``."""

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__()
        self.depth = config.temporal_depth
        self.cls_token = nn.Parameter(torch.zeros(config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1 + config.num_frames // config.patch_size[0], config.width))
        self.blocks = blocks_of(Block, config, self.depth)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        start(self, config.linear_init)

    def forward(self, steps: Tensor, layers: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The normalised tokens, the class token first; with ``layers`` also every block's output.

        Raises:
            ValueError: the clip has another number of steps than there are positions.
        """
        if steps.shape[1] + 1 != len(self.pos_embed):
            raise ValueError(f"this network was built for {len(self.pos_embed) - 1} steps, got {steps.shape[1]}")
        x = torch.cat([self.cls_token.expand(steps.shape[0], 1, -1), steps], dim=1) + self.pos_embed
        x, seen = run_blocks(self.blocks, x, layers)
        return self.norm(x), seen

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for positions, ``i + 1`` for block ``i``."""
        return layer_of(name, self.depth + 1)

    def load_image(self, image: Mapping[str, Tensor], depth: int) -> None:
        """Start as the last layers of an image transformer of ``depth`` layers."""
        given = {}
        for name, value in image.items():
            block = re.match(r"blocks\.(\d+)\.", name)
            if block and int(block[1]) >= depth - self.depth:
                given[f"blocks.{int(block[1]) - depth + self.depth}.{name[block.end() :]}"] = value
            elif name.startswith("norm.") or name == "cls_token":
                given[name] = value
        self.load_state_dict(given, strict=False)


@dataclass(frozen=True, kw_only=True)
class ViViTConfig(TransformerArchitecture, ClassificationConfig):
    """A transformer of tubelets with a linear classifier on its class token, or mean token where it has none."""

    variant: Literal["joint", "factorised_encoder", "factorised", "factorised_heads"] = "joint"
    """The paper's models 1 to 4."""
    patch_size: tuple[Count, Count, Count]
    """Frames, height and width of a tubelet."""
    temporal_depth: Count = 1
    """Blocks over time of the factorised encoder."""
    frozen_frames: bool = False
    """Whether the factorised encoder's network of frames is frozen, with an adapter between it and time."""
    adapter_heads: Count = 1
    """Attention heads of the adapter, of 64 channels each."""

    def encoder(self) -> SpaceTimeTransformer | FactorisedEncoder:
        """The network without its classifier.

        Raises:
            UserError: frames are to be frozen in a variant without a network of frames.
        """
        if self.frozen_frames and self.variant != "factorised_encoder":
            raise UserError(f"only the factorised_encoder has a network of frames to freeze, not {self.variant}")
        if self.variant == "joint":
            return SpaceTimeTransformer(JOINT, self)
        if self.variant == "factorised":
            encoder = SpaceTimeTransformer(BlockKind(FactorisedBlock, on_grid=True, class_token=False), self)
            for block in encoder.blocks:  # attention over time starts at zero
                nn.init.zeros_(block.time_attention.out.weight)
                nn.init.zeros_(block.time_attention.out.bias)
            return encoder
        if self.variant == "factorised_heads":
            make = partial(HeadsBlock, time=self.num_frames // self.patch_size[0])
            return SpaceTimeTransformer(BlockKind(make, class_token=False), self)
        frames, temporal = FrameTransformer(self), TemporalTransformer(self)
        adapter = RegionAdapter(self.width, self.adapter_heads, 64) if self.frozen_frames else None
        return FactorisedEncoder(frames, temporal, frozen=self.frozen_frames, adapter=adapter)

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """The network of frames, if it is frozen."""
        return {"encoder.frames": FrozenPart("init")} if self.frozen_frames else {}

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(self.encoder(), self)


_GREY = (0.5, 0.5, 0.5)


def tiny() -> Run:
    """Joint attention on eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=ViViTConfig(
            width=64,
            depth=3,
            num_heads=2,
            temporal_depth=1,
            num_frames=8,
            size=64,
            patch_size=(2, 8, 8),
            adapter_heads=3,
            gelu="tanh",
            mean=_GREY,
            std=_GREY,
            linear_init="glorot",
            num_classes=8,
        ),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(network: ViViTConfig) -> Run:
    """Kinetics-400 from an image transformer of ImageNet-21K: 30 epochs of SGD, 4 clips x 3 crops in testing."""
    return Run(
        data=Data(
            clip=Clip(num_frames=network.num_frames, stride=2, short_side=(256, 340)),
            augment=Augment(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.2),
            batch_size=64,
            num_workers=10,
        ),
        objective=network,
        optim=SGD(lr=0.05, weight_decay=0.0, schedule=Cosine(warmup=2.5 / 30)),
        train=Loop(length=Epochs(30), precision="bfloat16"),
        evals=(MultiView(num_clips=4, num_crops=3),),
    )


BASE = ViViTConfig(
    width=768,
    depth=12,
    num_heads=12,
    temporal_depth=4,
    num_frames=32,
    size=224,
    patch_size=(2, 16, 16),
    adapter_heads=3,
    gelu="tanh",
    mean=_GREY,
    std=_GREY,
    num_classes=400,
)
ENCODER = replace(BASE, variant="factorised_encoder")
LARGE = replace(ENCODER, width=1024, depth=24, num_heads=16, num_frames=128)


def base_k400() -> Run:
    """ViViT-B/16x2, joint attention: 89M parameters, 455 G multiply-adds."""
    return _k400(BASE)


def base_k400_encoder() -> Run:
    """ViViT-B/16x2, factorised encoder: 115M parameters, 284 G multiply-adds."""
    return _k400(ENCODER)


def base_k400_attention() -> Run:
    """ViViT-B/16x2, factorised self-attention: 117M parameters, 372 G multiply-adds."""
    return _k400(replace(BASE, variant="factorised"))


def base_k400_heads() -> Run:
    """ViViT-B/16x2, factorised dot-product attention: 89M parameters, 277 G multiply-adds."""
    return _k400(replace(BASE, variant="factorised_heads"))


def base_k400_frozen() -> Run:
    """ViViT-B/16x2, factorised encoder whose frames are not trained: 116M parameters, of which 30M learn."""
    return _k400(replace(ENCODER, frozen_frames=True))


def large_k400() -> Run:
    """ViViT-L/16x2, factorised encoder, 128 frames in one view: 355M parameters, 3980 G multiply-adds."""
    run = _k400(LARGE)
    return replace(run, optim=replace(run.optim, lr=0.1), evals=(MultiView(num_clips=1, num_crops=3),))


def tiny_frozen() -> Run:
    """The factorised encoder with frozen frames, as small as ``tiny``."""
    run = tiny()
    return replace(run, objective=replace(run.objective, variant="factorised_encoder", frozen_frames=True))
