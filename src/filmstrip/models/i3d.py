"""I3D: Inception-v1 with every filter and pooling inflated to three dimensions (Carreira & Zisserman 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, PositiveShare, Rate
from filmstrip.nn.normalise import Normalise
from filmstrip.protocols import Features, Grid, Layout, Rules, check_video

# Channels of each block: the 1x1, then 1x1 and 3x3, again 1x1 and 3x3, and the 1x1 after the pooling
_STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
_STAGE_POOLS = (((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)))
_HEAD_POOL = (2, 7, 7)
_SEED = 101


@dataclass(frozen=True, kw_only=True)
class I3DArchitecture:
    """The configuration of an :class:`I3D`."""

    share: PositiveShare = 1.0
    """Factor on all channels."""
    channels: Count = 3
    """Channels of the input: 3 of RGB, or 2 of optical flow in -1..1."""
    num_classes: CountOrZero = 0
    """Classes of its head; none without one."""
    norm_eps: Rate = 1e-3
    """Constant that normalisations add to the variance; by default as in the original."""


class I3D(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`, and with a head a classifier.

    Frames are halved three times, height and width five times, rounding up; the published networks see squares of
    224 pixels. Padding is TensorFlow's, which is uneven where a size is even. ``name`` identifies the weights
    wherever a figure is computed with them.
    """

    name = "i3d"

    def __init__(self, config: I3DArchitecture) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(1, round(channels * config.share))

        inputs, reduced, width = scaled(64), scaled(64), scaled(192)
        self.channels = channels = config.channels
        norm_eps = config.norm_eps
        pixels = channels == 3
        self.normalise = Normalise(mean=[0.5 * pixels] * channels, std=[0.5 if pixels else 1.0] * channels)
        self.stem = nn.ModuleList(
            (
                Unit(channels, inputs, kernel=7, stride=2, norm_eps=norm_eps),
                Unit(inputs, reduced, norm_eps=norm_eps),
                Unit(reduced, width, kernel=3, norm_eps=norm_eps),
            )
        )
        self.stages = nn.ModuleList()
        for stage in _STAGES:
            blocks = nn.ModuleList()
            for outputs in stage:
                blocks.append(Inception(width, [scaled(c) for c in outputs], norm_eps=norm_eps))
                width = blocks[-1].width
            self.stages.append(blocks)
        self.width = width
        self.depth = len(_STAGES) + 1
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else None

    @classmethod
    def stand_in(cls) -> I3D:
        """An eighth as wide, without a head, with random weights that are the same everywhere: needs no file."""
        network = cls(I3DArchitecture(share=1 / 8))
        network.name = "random_i3d"
        generator = torch.Generator().manual_seed(_SEED)
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
        return network.requires_grad_(False).eval()

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T 3 H W`` video; ``layers`` adds the stem's and each stage's tokens, on grids of their own."""
        x, seen = self._maps(video)
        return Features(_tokens(x), Grid(*x.shape[2:]), tuple(map(_tokens, seen)) if layers else ())

    def pooled(self, video: Tensor) -> Tensor:
        """The head's input, ``B D``: means over windows of 2 x 7 x 7 positions, averaged over where they fit."""
        x, _ = self._maps(video)
        window = [min(kernel, size) for kernel, size in zip(_HEAD_POOL, x.shape[2:])]
        return F.avg_pool3d(x, window, stride=1).mean(dim=(2, 3, 4))

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T 3 H W`` video.

        Raises:
            ValueError: the network was built without a head.
        """
        if self.head is None:
            raise ValueError("this I3D has no head: build it with num_classes")
        # The head is linear, so that averaging its input is averaging the logits over time, as published.
        return self.head(self.pooled(video))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the stem, ``i + 1`` for stage ``i``, then the head."""
        if name.startswith("stages."):
            return int(name.split(".")[1]) + 1
        return self.depth if name.startswith("head.") else 0

    def layouts(self) -> tuple[Layout, ...]:
        """pytorch-i3d's (``rgb_imagenet.pt``), and that of the TorchScript that FVD is computed with."""
        return tuple(
            Layout(
                name=name,
                rules=_rules(torchscript=name == _TORCHSCRIPT),
                after=(r"(?:logits|conv3d_0c_1x1)\..*",),
                to_theirs=lambda ours, tensor: tensor[:, :, None, None, None] if tensor.ndim == 2 else tensor,
            )
            for name in ("pytorch-i3d", _TORCHSCRIPT)
        )

    def _maps(self, video: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last activations ``B D t h w``, and those after the stem and after each stage."""
        check_video(video, channels=self.channels)
        x = rearrange(self.normalise(video), "b t c h w -> b c t h w")
        x = self.stem[0](x.contiguous(memory_format=torch.channels_last_3d))
        x = max_pool_same(x, (1, 3, 3), (1, 2, 2))
        x = self.stem[2](self.stem[1](x))
        seen = [x]
        for (kernel, stride), blocks in zip(_STAGE_POOLS, self.stages):
            x = max_pool_same(x, kernel, stride)
            for block in blocks:
                x = block(x)
            seen.append(x)
        return x, seen


_TORCHSCRIPT = "TorchScript"
_BLOCKS = (("3b", "3c"), ("4b", "4c", "4d", "4e", "4f"), ("5b", "5c"))
_UNITS = ((0, 0, "b0", "branch_0"), (1, 0, "b1a", "branch_1.0"), (1, 1, "b1b", "branch_1.1"))
_UNITS += ((2, 0, "b2a", "branch_2.0"), (2, 1, "b2b", "branch_2.1"), (3, 0, "b3b", "branch_3.1"))


def _rules(*, torchscript: bool) -> Rules:
    """Ours to those of either layout."""
    letter, mixed, norm = ("c", "mixed", "batch3d") if torchscript else ("C", "Mixed", "bn")
    rules = [(r"^encoder\.", ""), (r"\.conv\.", ".conv3d."), (r"\.norm\.", f".{norm}.")]
    for i, name in enumerate(("onv3d_1a_7x7", "onv3d_2b_1x1", "onv3d_2c_3x3")):
        rules.append((rf"^stem\.{i}\.", f"{letter}{name}."))
    for stage, blocks in enumerate(_BLOCKS):
        for i, block in enumerate(blocks):
            for branch, unit, *keys in _UNITS:
                ours = rf"^stages\.{stage}\.{i}\.branches\.{branch}\.{unit}\."
                rules.append((ours, f"{mixed}_{block}.{keys[torchscript]}."))
    return (*rules, (r"^head\.", "conv3d_0c_1x1.conv3d." if torchscript else "logits.conv3d."))


class Unit(nn.Module):
    """A convolution without bias, batch normalisation and a ReLU: ``B C T H W`` to its ceiling over the stride."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, norm_eps: float = 1e-3
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=stride, bias=False)
        self.norm = nn.BatchNorm3d(outputs, eps=norm_eps, momentum=0.01)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit."""
        return F.relu(self.norm(self.conv(pad_same(x, self.conv.kernel_size, self.conv.stride))), inplace=True)


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al. 2015); ``channels`` are those of their convolutions."""

    def __init__(self, inputs: int, channels: Sequence[int], *, norm_eps: float) -> None:
        super().__init__()
        one, reduce_a, three_a, reduce_b, three_b, pooled = channels
        self.width = one + three_a + three_b + pooled
        self.branches = nn.ModuleList(
            nn.Sequential(*units)
            for units in (
                [Unit(inputs, one, norm_eps=norm_eps)],
                [Unit(inputs, reduce_a, norm_eps=norm_eps), Unit(reduce_a, three_a, kernel=3, norm_eps=norm_eps)],
                [Unit(inputs, reduce_b, norm_eps=norm_eps), Unit(reduce_b, three_b, kernel=3, norm_eps=norm_eps)],
                [Unit(inputs, pooled, norm_eps=norm_eps)],
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B width T H W``."""
        inputs = (x, x, x, max_pool_same(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([branch(y) for branch, y in zip(self.branches, inputs)], dim=1)


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around ``B C T H W`` so that windows yield the ceiling of each size over its stride (TensorFlow's SAME).

    An odd number of zeros has one more at the end.
    """
    needed = [max(k - (size % s or s), 0) for size, k, s in zip(x.shape[2:], kernel, stride)]
    sides = [side for total in reversed(needed) for side in (total // 2, total - total // 2)]
    return F.pad(x, sides) if any(sides) else x


def max_pool_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Maxima of windows of activations, none of which is negative, so that zeros around them change nothing."""
    return F.max_pool3d(pad_same(x, kernel, stride), tuple(kernel), tuple(stride))


def _tokens(x: Tensor) -> Tensor:
    return rearrange(x, "b c t h w -> b (t h w) c")
