"""UniFormer: convolution and attention as relations between positions, local ones at first, global ones at last.

While positions are many, each mixes with its 5 x 5 x 5 neighbours (a depthwise convolution between linear maps); in
the last two stages it attends to all. Positions come from depthwise convolutions. Li et al., "UniFormer: Unified
Transformer for Efficient Spatiotemporal Representation Learning", ICLR 2022.

    filmstrip train recognition.uniformer:small_16x4_k400 --data.path PATH

``filmstrip.weights.inflate`` makes a start out of a 2D UniFormer's weights, which the published ones were. Where we
deviate: the RandAugment operations are applied to a whole clip, after cropping; learning rates are the published ones
for the published batch.

The paper reports, Kinetics-400 (top-1, 4 clips): S 16 x 4 80.8, B 16 x 4 82.0, B 32 x 4 82.9; Something-Something V2
(1 clip x 3 crops) B 32 71.2.

Measured here (``filmstrip claims uniformer_stages``, 400 steps, mean of three seeds; moving textures, chance 12.5):
``tiny`` 96.4, with no local stage 78.7, with four 99.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated

from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, NotEmpty, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet3d import PIXEL_MEAN, PIXEL_STD
from filmstrip.nn.block import Block
from filmstrip.nn.conv import channels_first, tokens_of
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import init_normal
from filmstrip.nn.normalise import Normalise
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Features, Grid, Layout, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


def _depthwise(width: int, kernel: int) -> nn.Conv3d:
    return nn.Conv3d(width, width, kernel, padding=kernel // 2, groups=width)


class LocalBlock(nn.Module):
    """Positions, relations to the 5 x 5 x 5 positions around, a feed-forward network; each is added. ``B C T H W``.

    Li et al. 2022 (UniFormer), equation 6: the affinity of two positions is a number learnt for their offset, for
    each channel: a depthwise convolution between two linear layers. Positions are depthwise convolutions too (dynamic
    position embedding, equation 4).
    """

    def __init__(self, width: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        hidden = 4 * width
        self.positions = _depthwise(width, 3)
        self.norm1 = nn.BatchNorm3d(width)
        self.values = nn.Conv3d(width, width, 1)
        self.affinity = _depthwise(width, 5)
        self.out = nn.Conv3d(width, width, 1)
        self.norm2 = nn.BatchNorm3d(width)
        self.mlp = nn.Sequential(nn.Conv3d(width, hidden, 1), nn.GELU(), nn.Conv3d(hidden, width, 1))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C T H W``."""
        x = x + self.positions(x)
        x = x + self.drop_path(self.out(self.affinity(self.values(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class GlobalBlock(Block):
    """Positions as in :class:`LocalBlock`, then a transformer's block over all positions. ``B C T H W``."""

    def __init__(self, width: int, num_heads: int, *, drop_path: float = 0.0) -> None:
        super().__init__(width, num_heads, drop_path=drop_path)
        self.positions = _depthwise(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C T H W``."""
        x = x + self.positions(x)
        y = super().forward(tokens_of(x))
        return rearrange(y, "b (t h w) c -> b c t h w", t=x.shape[2], h=x.shape[3])


class Shrink(nn.Module):
    """A convolution that cuts frames into squares, with neighbouring frames where ``frames`` says, normalised."""

    def __init__(self, inputs: int, width: int, size: int, *, frames: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, width, (frames, size, size), (stride, size, size), (frames // 2, 0, 0))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B D T/stride H/size W/size``."""
        y = self.norm(rearrange(self.conv(x), "b c t h w -> b t h w c"))
        return rearrange(y, "b t h w c -> b c t h w")


class UniFormer(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: ``local_stages`` stages of local blocks, then stages of global ones.

    Li et al. 2022. The first stage halves time and quarters height and width, the others halve height and width.
    """

    def __init__(self, config: UniFormerConfig) -> None:
        super().__init__()
        self.depths = config.depths
        self.depth = sum(config.depths)
        self.width = config.widths[-1]
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        self.stages = nn.ModuleList()
        inputs = 3
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths)):
            shrink = Shrink(inputs, width, 2) if stage else Shrink(inputs, width, 4, frames=3, stride=2)
            blocks = nn.ModuleList()
            before = sum(config.depths[:stage])
            for i in range(before, before + depth):
                drop_path = config.drop_path * i / max(1, self.depth - 1)
                if stage < config.local_stages:
                    blocks.append(LocalBlock(width, drop_path=drop_path))
                else:
                    blocks.append(GlobalBlock(width, width // config.head_dim, drop_path=drop_path))
            self.stages.append(nn.ModuleDict({"shrink": shrink, "blocks": blocks}))
            inputs = width
        self.norm = nn.BatchNorm3d(self.width)
        self.apply(init_normal)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each block's tokens, on grids and widths of its own.

        Raises:
            ValueError: the clip is not a multiple of the strides, 2 in time and 32 in space with four stages.
        """
        scale = 2 ** (len(self.depths) + 1)
        check_video(video, multiple=(2, scale, scale))
        x = channels_first(self.normalise(video))
        seen = []
        for stage in self.stages:
            x = stage["shrink"](x)
            for block in stage["blocks"]:
                x = block(x)
                if layers:
                    seen.append(tokens_of(x))
        return Features(tokens_of(self.norm(x)), Grid(*x.shape[2:]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: a stage's embedding belongs to the block before it."""
        if match := re.match(r"stages\.(\d+)\.shrink\.", name):
            return sum(self.depths[: int(match[1])])
        if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name):
            return sum(self.depths[: int(match[1])]) + int(match[2]) + 1
        return self.depth + 1

    def layouts(self) -> tuple[Layout, ...]:
        """The authors'."""
        return (Layout(name="UniFormer", rules=_PUBLISHED, after=(r"head\..*",)),)


_PUBLISHED = (
    (r"^encoder\.", ""),
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
"""Ours to theirs."""


@dataclass(frozen=True, kw_only=True)
class UniFormerConfig(ClassificationConfig):
    """A UniFormer with a linear classifier on its mean token."""

    widths: Annotated[tuple[Count, ...], NotEmpty]
    """Channels of each stage."""
    depths: Annotated[tuple[Count, ...], NotEmpty]
    """Blocks of each stage."""
    head_dim: Count
    """Channels of an attention head."""
    local_stages: Count
    """Number of stages, from the first on, of local blocks; the others attend to all positions."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""

    def build(self) -> Classification:
        """Build the network with fresh weights."""
        return Classification(UniFormer(self), self)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=UniFormerConfig(
            widths=(16, 32, 48, 64),
            depths=(1, 1, 1, 1),
            head_dim=16,
            local_stages=2,
            label_smoothing=0.1,
            num_classes=8,
        ),
        optim=AdamW(lr=2e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(network: UniFormerConfig, *, frames: int, lr: float, batch: int) -> Run:
    """Kinetics-400 for 110 epochs."""
    return Run(
        data=Data(
            clip=Clip(num_frames=frames, stride=4, crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(rand_ops=4, rand_magnitude=7.0, mixup=0.8, cutmix=1.0, erase=0.25),
            batch_size=batch,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(lr=lr, weight_decay=0.05, schedule=Cosine(warmup=10 / 110, final=1e-6 / lr)),
        train=Loop(length=Epochs(110), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=4, num_crops=1),),
    )


SMALL = UniFormerConfig(
    widths=(64, 128, 320, 512),
    depths=(3, 4, 8, 3),
    head_dim=64,
    local_stages=2,
    drop_path=0.1,
    label_smoothing=0.1,
    num_classes=400,
)
BASE = replace(SMALL, depths=(5, 8, 20, 7), drop_path=0.3)


def small_16x4_k400() -> Run:
    """UniFormer-S, 16 frames 4 apart, on Kinetics-400: 21.4M parameters, 41.8 G multiply-adds."""
    return _k400(SMALL, frames=16, lr=1e-4, batch=32)


def base_16x4_k400() -> Run:
    """UniFormer-B, 16 frames 4 apart: 49.8M parameters, 96.7 G multiply-adds."""
    return _k400(BASE, frames=16, lr=1.25e-4, batch=40)


def base_32x4_k400() -> Run:
    """UniFormer-B, 32 frames 4 apart: 49.8M parameters, 259 G multiply-adds."""
    return _k400(BASE, frames=32, lr=1.25e-4, batch=40)


def base_32_ssv2() -> Run:
    """UniFormer-B on Something-Something V2, one frame from each of 32 segments; published from Kinetics weights."""
    run = _k400(replace(BASE, drop_path=0.5, num_classes=174), frames=32, lr=2e-4, batch=32)
    clip = replace(run.data.clip, sampling="segments")
    return replace(
        run,
        data=replace(run.data, clip=clip, augment=replace(run.data.augment, mirror=0.0)),
        optim=replace(run.optim, schedule=replace(run.optim.schedule, warmup=5 / 50)),
        train=replace(run.train, length=Epochs(50)),
        evals=(MultiView(num_clips=1, num_crops=3),),
    )
