"""X3D: a tiny image network, expanded in frames, resolution, width and depth only where that pays.

Channel-wise 3 x 3 x 3 convolutions mix space and time, 1 x 1 ones mix channels, which is why it needs a tenth of the
operations of its peers. Feichtenhofer, "X3D: Expanding Architectures for Efficient Video
Recognition", CVPR 2020.

    filmstrip train recognition.x3d:m_k400 --data.path PATH

The multiply-adds below are for the sizes it trains with. The networks are tested with larger crops (182, 182, 256
and 356 pixels), in which S, M and L need 2.7, 6.2 and 24.8 G. The paper counts 3.76M parameters for XS, S and M
and 6.08M for L; the released networks, and ours, have 3.79M and 6.15M. Where we deviate: the warm-up starts at zero.

There are two published networks, which differ in one norm: the SlowFast code base's (``--objective.shortcut-norm``)
normalises the first stage's shortcut, PyTorchVideo's does not. Each reads its own files, and refuses the other's.

The released weights have, on Kinetics-400 (top-1, 30 views): XS 69.5, S 73.5, M 76.2, L 77.5.

Measured here (``filmstrip claims x3d_cost``, mean of three seeds; moving textures, chance 12.5): a small X3D 71.9 in
500 steps, a SlowFast of four times the operations 98.1 in 250.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.models.resnet3d import PIXEL_MEAN, PIXEL_STD, init_conv
from filmstrip.nn.conv import SpatialConv, Window, channels_first, tokens_of
from filmstrip.nn.normalise import Normalise
from filmstrip.objectives.classification import ClassificationConfig
from filmstrip.objectives.mlp_head import MLPClassification
from filmstrip.protocols import Features, Grid, Layout, Rules, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights import pytorchvideo

_DEPTHS = (1, 2, 5, 3)


class X3D(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: channel-wise 3 x 3 x 3 convolutions inside bottlenecks that widen.

    All frames are kept; height and width are halved by the stem and by each stage, and channels doubled from stage to
    stage. A token is what the published head pools.
    """

    def __init__(self, config: X3DConfig) -> None:
        super().__init__()
        self.shortcut_norm = config.shortcut_norm
        width = config.width
        self.depth = len(_DEPTHS) + 1
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        self.stem = nn.Sequential(
            SpatialConv(3, width, stride=2),
            ChannelConv(width, kernel=(5, 1, 1)),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList()
        inputs = width
        for i, depth in enumerate(_DEPTHS):
            outputs = width * 2**i
            blocks = []
            for j in range(math.ceil(depth * config.deeper)):
                inner = int(outputs * config.bottleneck)
                # Every other block weighs its channels by their means.
                norm = config.shortcut_norm or inputs != outputs
                blocks.append(Block(inputs, inner, outputs, stride=1 if j else 2, excite=j % 2 == 0, norm=norm))
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
        self.width = int(inputs * config.bottleneck)
        self.last = nn.Sequential(
            SpatialConv(inputs, self.width, kernel=1), nn.BatchNorm3d(self.width), nn.ReLU(inplace=True)
        )
        self.apply(init_conv)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T 3 H W`` video; ``layers`` also returns each stage's tokens, on grids and widths of its own."""
        check_video(video)
        x = self.stem(channels_first(self.normalise(video)))
        seen = []
        for blocks in self.stages:
            x = blocks(x)
            if layers:
                seen.append(tokens_of(x))
        x = self.last(x)
        return Features(tokens_of(x), Grid(*x.shape[2:]), (*seen, tokens_of(x)) if layers else ())

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the stem, ``i + 1`` for stage ``i``, then the last one."""
        if name.startswith("stages."):
            return int(name.split(".")[1]) + 1
        return self.depth if name.startswith("last.") else 0

    def layouts(self) -> tuple[Layout, ...]:
        """PyTorchVideo's and the SlowFast code base's, which are of two networks."""
        return pytorchvideo.layouts(
            _names(pytorchvideo.HUB),
            _names(pytorchvideo.SLOWFAST),
            convolved=r".*\.weigh\.\d\.weight|hidden\.0\.weight",
            check=self._check_shortcuts,
        )

    def _check_shortcuts(self, theirs: Mapping[str, Tensor]) -> None:
        """Only the SlowFast code base's network normalises every shortcut."""
        norm = "s2.pathway0_res0.branch1_bn.weight"
        if norm in theirs and not self.shortcut_norm:
            raise UserError(
                f"the file is an X3D of the SlowFast code base, which has a norm ({norm}) that this network has not: "
                "build it with shortcut_norm (--objective.shortcut-norm)"
            )


class ChannelConv(nn.Conv3d):
    """A convolution of each channel alone, without bias, padded to keep the size; ``stride`` is in space."""

    def __init__(self, channels: int, *, kernel: tuple[int, int, int] = (3, 3, 3), stride: int = 1) -> None:
        padding = tuple(k // 2 for k in kernel)
        super().__init__(
            channels, channels, kernel, stride=(1, stride, stride), padding=padding, groups=channels, bias=False
        )


class Excite(nn.Module):
    """Channels weighed by a small network's view of their means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = _multiple_of_8(channels / 16)
        self.weigh = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W`` to the same."""
        return x * rearrange(self.weigh(x.mean(dim=(2, 3, 4))), "b c -> b c 1 1 1")

    def window(self, size: tuple[int, int, int]) -> Window:
        """Every position sees all of an activation of ``size`` (t, h, w)."""
        return tuple(2 * n - 1 for n in size), (1, 1, 1)


class Block(nn.Module):
    """1 x 1, channel-wise 3 x 3 x 3 and 1 x 1, added to the input; ``stride`` is in space.

    Where the input changes its size on the way, it is convolved, and with ``norm`` normalised.
    """

    def __init__(self, inputs: int, inner: int, outputs: int, *, stride: int, excite: bool, norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            SpatialConv(inputs, inner, kernel=1),
            nn.BatchNorm3d(inner),
            nn.ReLU(inplace=True),
            ChannelConv(inner, stride=stride),
            nn.BatchNorm3d(inner),
            Excite(inner) if excite else nn.Identity(),
            nn.SiLU(inplace=True),
            SpatialConv(inner, outputs, kernel=1),
            nn.BatchNorm3d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            last = nn.BatchNorm3d(outputs) if norm else nn.Identity()
            self.shortcut = nn.Sequential(SpatialConv(inputs, outputs, kernel=1, stride=stride), last)
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu_(self.body(x) + self.shortcut(x))


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and not less than nine tenths of what was asked for."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _names(layout: str) -> Rules:
    """Ours to those of a layout. PyTorchVideo's ``conv_t`` is the stem's convolution in space."""
    hub = layout == pytorchvideo.HUB
    space, time, norm = ("conv.conv_t", "conv.conv_xy", "norm") if hub else ("conv_xy", "conv", "bn")
    stem = "blocks.0" if hub else "s1.pathway0_stem"
    rules = [
        (r"^head\.", "blocks.5.proj." if hub else "head.projection."),
        (r"^hidden\.0\.", "blocks.5.pool.post_conv." if hub else "head.lin_5."),
        (r"^last\.0\.", "blocks.5.pool.pre_conv." if hub else "head.conv_5."),
        (r"^last\.1\.", "blocks.5.pool.pre_norm." if hub else "head.conv_5_bn."),
        *((rf"^stem\.{i}\.", f"{stem}.{part}.") for i, part in enumerate((space, time, norm))),
        # One module more than in a bottleneck: the weights of channels between its second and third parts
        *pytorchvideo.bottleneck_rules(layout, third=7),
    ]
    for i in range(len(_DEPTHS)):
        stage = rf"blocks.{i + 1}.res_blocks.\1." if hub else rf"s{i + 2}.pathway0_res\1."
        rules.append((rf"^stages\.{i}\.(\d+)\.", stage))
    excite = {"0": "norm_b.1.block.0", "2": "norm_b.1.block.2"} if hub else {"0": "se.fc1", "2": "se.fc2"}
    return (
        *rules,
        (r"\.norm_b\.", ".norm_b.0."),
        *((rf"\.body\.5\.weigh\.{part}\.", f".branch2.{name}.") for part, name in excite.items()),
    )


@dataclass(frozen=True, kw_only=True)
class X3DConfig(ClassificationConfig):
    """An X3D network."""

    width: Count
    """Channels of the first stage."""
    deeper: Rate
    """Factor on the stages' 1, 2, 5 and 3 blocks, rounded up."""
    bottleneck: Rate
    """Factor from the width of a block to that of its inside."""
    shortcut_norm: bool = False
    """Whether convolved shortcuts are normalised even if only the stride differs, as in the SlowFast code base."""
    hidden: Count
    """Width of the layer between the pooled features and the classes."""

    def build(self) -> MLPClassification:
        """Build the network with fresh weights."""
        return MLPClassification(X3D(self), self, hidden=(self.hidden,), bias=False)


def tiny() -> Run:
    """Eight motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=X3DConfig(width=8, deeper=1.0, bottleneck=2.25, hidden=64, num_classes=8),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


def _k400(*, num_frames: int, stride: int, size: int, short_side: tuple[int, int], deeper: float = 2.2) -> Run:
    return Run(
        data=Data(
            clip=Clip(num_frames=num_frames, stride=stride, size=size, short_side=short_side),
            augment=Augment(),
            batch_size=1024,
            num_workers=10,
        ),
        objective=X3DConfig(width=24, deeper=deeper, bottleneck=2.25, hidden=2048, dropout=0.5, num_classes=400),
        optim=SGD(lr=1.6, weight_decay=5e-5, schedule=Cosine(warmup=35 / 256)),
        train=Loop(length=Epochs(256), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=10, num_crops=3),),
    )


def xs_k400() -> Run:
    """4 frames, 12 apart, of 160 pixels: 3.8M parameters, 0.6 G multiply-adds."""
    return _k400(num_frames=4, stride=12, size=160, short_side=(182, 228))


def s_k400() -> Run:
    """13 frames, 6 apart, of 160 pixels: 2.0 G multiply-adds."""
    return _k400(num_frames=13, stride=6, size=160, short_side=(182, 228))


def m_k400() -> Run:
    """16 frames, 5 apart, of 224 pixels: 4.7 G multiply-adds."""
    return _k400(num_frames=16, stride=5, size=224, short_side=(256, 320))


def l_k400() -> Run:
    """16 frames, 5 apart, of 312 pixels, over twice as deep: 6.2M parameters, 18.4 G multiply-adds."""
    return _k400(num_frames=16, stride=5, size=312, short_side=(356, 446), deeper=5.0)
