"""UniRepLKNet: a 2D network of large kernels, made for pictures, classifies a clip that is laid out as one picture.

Nothing in it is made for video: 16 frames become a picture four times as high and wide, in which kernels of 13 x 13
reach from one frame to the next. In training a large kernel has smaller, dilated ones beside it; afterwards all of
them are one kernel. Ding et al., "UniRepLKNet: A Universal Perception Large-Kernel ConvNet for Audio, Video, Point
Cloud, Time-Series and Image Recognition", CVPR 2024.

    filmstrip train recognition.unireplknet:base_k400 --data.path PATH

The layout is that of the public code, which reshapes memory: four successive rows of a frame lie side by side, and
frames follow one another from top to bottom. Where we deviate: the RandAugment operations are applied to a whole
clip, after cropping. The sizes of the video network, its rates and its schedule are the public code's, whose learning
rate of 4e-3 for 256 clips is 1e-3 for the 64 of its script.

The public code gives no accuracy on video. Of a UniRepLKNet-B it says 98M parameters, and 47.2 G multiply-adds at
384 x 384: 257 G for a picture of 896 x 896. ``filmstrip claims unireplknet_kernels`` merges kernels and trains small.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, ShareBelowOne, Weight
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import STD
from filmstrip.nn.normalise import Normalise
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Features, Grid, Layout, check_video
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

DILATED = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
}
"""Kernels beside a large one, by its size: size and dilation of each."""
_EPS = 1e-6
_GROUP = 3
"""Blocks that share a depth, and so a learning rate."""


@dataclass(frozen=True, kw_only=True)
class UniRepLKNetArchitecture:
    """The configuration of the network."""

    width: Count
    """Channels of the first stage; they double from stage to stage."""
    depths: tuple[Count, ...]
    """Blocks of each stage."""
    large_every: tuple[CountOrZero, ...]
    """Blocks from one with a large kernel to the next, for each stage but the first, which has none; zero: it has
    none, either. All other kernels are 3 x 3."""
    kernel: Count = 13
    """Height and width of large kernels: 7, 9, 11, 13, 15 or 17."""
    layer_scale: Weight = 1e-6
    """Initial scale of each block's branch."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    num_frames: Count
    """Frames of a clip; a square number makes a square picture, others a tall one."""
    size: Count
    """Height and width of a clip, pixels."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``B C H W``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every place on its own."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Branch(nn.Module):
    """A depthwise convolution without bias and its batch normalisation: ``B C H W``."""

    def __init__(self, width: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = nn.Conv2d(width, width, kernel, padding=padding, dilation=dilation, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both."""
        return self.norm(self.conv(x))

    def merged(self, size: int) -> tuple[Tensor, Tensor]:
        """The kernel ``C 1 size size`` and the bias of one convolution that is this branch in evaluation."""
        scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        kernel, step = self.conv.weight * scale[:, None, None, None], self.conv.dilation[0]
        if step > 1:  # zeros between its taps
            count = kernel.shape[-1]
            spread = kernel.new_zeros(kernel.shape[0], 1, count, step, count, step)
            spread[:, :, :, 0, :, 0] = kernel
            kernel = spread.flatten(4, 5).flatten(2, 3)[:, :, : step * (count - 1) + 1, : step * (count - 1) + 1]
        return F.pad(kernel, [(size - kernel.shape[-1]) // 2] * 4), self.norm.bias - self.norm.running_mean * scale


class LargeKernel(nn.Module):
    """A large depthwise convolution and dilated ones beside it, added; one convolution in evaluation: ``B C H W``."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.large = Branch(width, kernel)
        self.dilated = nn.ModuleDict({f"k{size}_{by}": Branch(width, size, by) for size, by in DILATED[kernel]})

    def forward(self, x: Tensor) -> Tensor:
        """Apply the branches, or the convolution that they are together."""
        branches = [self.large, *self.dilated.values()]
        if self.training:
            return torch.stack([branch(x) for branch in branches]).sum(dim=0)
        kernels, biases = zip(*(branch.merged(self.kernel) for branch in branches))
        bias = torch.stack(biases).sum(dim=0)
        return F.conv2d(x, torch.stack(kernels).sum(dim=0), bias, padding=self.kernel // 2, groups=x.shape[1])


class SqueezeExcite(nn.Module):
    """Channels weighted by what the mean over all places says (Hu et al. 2018): ``B C H W``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width // 4, 1)
        self.up = nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the weights."""
        return x * self.up(F.relu(self.down(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023): channels compete by their norms over places; ``B H W C``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and add the input."""
        norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        return (self.gamma * (norms / (norms.mean(dim=-1, keepdim=True) + _EPS)) + 1) * x + self.beta


class LargeKernelBlock(nn.Module):
    """A depthwise convolution, squeeze-and-excitation, and a feed-forward network, scaled and added: ``B C H W``."""

    def __init__(self, width: int, kernel: int, *, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        large = kernel > 5
        self.conv = (
            LargeKernel(width, kernel)
            if large
            else nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        )
        self.norm = nn.BatchNorm2d(width)
        self.excite = SqueezeExcite(width)
        self.widen = nn.Linear(width, 4 * width)
        self.response = ResponseNorm(4 * width)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        self.last_norm = nn.BatchNorm2d(width)
        self.gamma = nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.excite(self.norm(self.conv(x))).permute(0, 2, 3, 1)
        y = self.narrow(self.response(F.gelu(self.widen(y)))).permute(0, 3, 1, 2)
        return x + self.drop_path(self.gamma[:, None, None] * self.last_norm(y))


class Stage(nn.Module):
    """A strided convolution (of the first stage two), then blocks: ``B C H W``."""

    def __init__(self, config: UniRepLKNetArchitecture, index: int) -> None:
        super().__init__()
        width = config.width << index

        def halve(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), ChannelNorm(outputs, eps=_EPS)]

        first = [*halve(3, width // 2), nn.GELU(), *halve(width // 2, width)]
        self.down = nn.Sequential(*(first if index == 0 else halve(width // 2, width)))
        before, total = sum(config.depths[:index]), max(1, sum(config.depths) - 1)
        every = 0 if index == 0 else config.large_every[index - 1]
        self.blocks = nn.ModuleList(
            LargeKernelBlock(
                width,
                config.kernel if every and i % every == 0 else 3,
                layer_scale=config.layer_scale,
                drop_path=config.drop_path * (before + i) / total,
            )
            for i in range(config.depths[index])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the stage."""
        x = self.down(x)
        for block in self.blocks:
            x = block(x)
        return x


class UniRepLKNet(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of a clip as one picture; tokens lie on the picture's grid, ``1 h w``.

    Raises:
        UserError: sizes do not go together.
    """

    def __init__(self, config: UniRepLKNetArchitecture) -> None:
        super().__init__()
        stages, self.side = len(config.depths), math.isqrt(config.num_frames)
        if config.size % self.side:
            raise UserError(
                f"{config.num_frames} frames of {config.size} pixels make no picture: the size has to be a multiple "
                f"of {self.side}, the root of the number of frames, rounded down"
            )
        if config.kernel not in DILATED or len(config.large_every) != stages - 1:
            raise UserError(
                f"kernel is {config.kernel} and large_every has {len(config.large_every)} entries for {stages} "
                f"stages: expected a kernel of {', '.join(map(str, sorted(DILATED)))}, and an entry for each stage "
                "but the first"
            )
        self.clip = (config.num_frames, config.size)
        self.width = config.width << (stages - 1)
        self.groups = [math.ceil(depth / _GROUP) for depth in config.depths]
        self.depth = sum(self.groups)
        self.normalise = Normalise()
        self.stages = nn.ModuleList(Stage(config, index) for index in range(stages))
        self.apply(_initialise)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each stage's tokens, on grids and widths of their own.

        Raises:
            ValueError: the clip is not of the size that the network was built for.
        """
        x, seen = self.picture(video), []
        for stage in self.stages:
            x = stage(x)
            if layers:
                seen.append(rearrange(x, "b d h w -> b (h w) d"))
        return Features(rearrange(x, "b d h w -> b (h w) d"), Grid(1, *x.shape[2:]), tuple(seen))

    def picture(self, video: Tensor) -> Tensor:
        """Normalised pixels as one picture, ``B C T*H/side W*side``: ``side`` rows of a frame lie side by side."""
        check_video(video)
        frames, size = self.clip
        if (video.shape[1], *video.shape[3:]) != (frames, size, size):
            raise ValueError(
                f"this network was built for clips of {frames} x {size} x {size}, got "
                f"{video.shape[1]} x {video.shape[3]} x {video.shape[4]}: cut clips of the size that it was built for"
            )
        x = rearrange(self.normalise(video), "b t c (h side) w -> b c (t h) (side w)", side=self.side)
        return x.contiguous(memory_format=torch.channels_last)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the first convolutions, then one for every three blocks."""
        stage, part, index = re.match(r"stages\.(\d+)\.(\w+)\.(\d+)", name).groups()
        if part == "down":
            return 0 if stage == "0" else sum(self.groups[: int(stage)]) + 1
        return sum(self.groups[: int(stage)]) + 1 + int(index) // _GROUP

    def layouts(self) -> tuple[Layout, ...]:
        """The authors' training layout, of pictures and of video."""
        return (Layout(name="training", rules=_PUBLISHED, after=(r"head\..*", r"norm\..*")),)


def _initialise(module: nn.Module) -> None:
    """Truncated-normal weights and zero biases, as published."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_PUBLISHED = (
    (r"^encoder\.stages\.(\d+)\.down\.", r"downsample_layers.\1."),
    (r"^encoder\.stages\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2."),
    (r"\.conv\.large\.conv\.", ".dwconv.lk_origin."),
    (r"\.conv\.large\.norm\.", ".dwconv.origin_bn."),
    (r"\.conv\.dilated\.(\w+)\.conv\.", r".dwconv.dil_conv_\1."),
    (r"\.conv\.dilated\.(\w+)\.norm\.", r".dwconv.dil_bn_\1."),
    (r"\.conv\.weight$", ".dwconv.weight"),
    (r"\.excite\.", ".se."),
    (r"\.widen\.", ".pwconv1.1."),
    (r"\.response\.", ".act.1."),
    (r"\.narrow\.", ".pwconv2.0."),
    (r"\.last_norm\.", ".pwconv2.2."),
)
"""Ours to theirs."""


@dataclass(frozen=True, kw_only=True)
class UniRepLKNetConfig(UniRepLKNetArchitecture, ClassificationConfig):
    """A UniRepLKNet with a linear classifier on its normalised mean."""

    def build(self) -> Classification:
        """Build the network with fresh weights.

        Raises:
            UserError: sizes do not go together.
        """
        return Classification(UniRepLKNet(self), self, norm=True)


def tiny() -> Run:
    """Eight motions, 4 frames at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=4, stride=4, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=UniRepLKNetConfig(
            width=16,
            depths=(1, 1, 2, 1),
            large_every=(1, 2, 1),
            kernel=7,
            layer_scale=1.0,
            num_frames=4,
            size=64,
            num_classes=8,
        ),
        optim=AdamW(lr=2e-3),
        train=Loop(length=Steps(100)),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


SMALL = UniRepLKNetConfig(
    width=96,
    depths=(3, 3, 27, 3),
    large_every=(1, 3, 1),
    drop_path=0.4,
    num_frames=16,
    size=224,
    label_smoothing=0.1,
    num_classes=400,
)
BASE = replace(SMALL, width=128)


def _k400(network: UniRepLKNetConfig) -> Run:
    """Kinetics-400: 16 frames, 4 apart, from scratch, for 90 epochs."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=4, crop="random_resized", area=(0.08, 1.0)),
            augment=Augment(rand_ops=4, rand_magnitude=7.0, mixup=0.8, cutmix=1.0, erase=0.25),
            batch_size=64,
            clips_per_video=2,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(lr=1e-3, weight_decay=0.05, layer_decay=0.75, schedule=Cosine(warmup=5 / 90)),
        train=Loop(length=Epochs(90), precision="bfloat16", clip_grad=None),
        evals=(MultiView(num_clips=5, num_crops=3),),
    )


def base_k400() -> Run:
    """UniRepLKNet-B, the network of the public video code: 98M parameters."""
    return _k400(BASE)


def small_k400() -> Run:
    """UniRepLKNet-S with the same training."""
    return _k400(SMALL)
