"""STC, the spatial-temporal convolution connector of Video-LLaMA 2: tokens of frames to fewer of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.models.connectors import Connector, ConnectorConfig
from filmstrip.nn.linear import Linear
from filmstrip.nn.mlp import MLP
from filmstrip.protocols import Grid
from filmstrip.weights.keymap import Weights, check_names

_EPS = 1e-5


class RegBlock(nn.Module):
    """A block of RegNet (Radosavovic et al. 2020) with depthwise convolutions and layer norms: ``N H W C``.

    A layer, a 3 x 3 convolution of each channel alone, squeeze and excitation to a quarter of the inputs' channels,
    another layer, and a shortcut, which is a layer too where the number of channels changes.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(inputs, width, bias=False)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        squeezed = max(1, round(inputs / 4))
        self.squeeze = Linear(width, squeezed)
        self.excite = Linear(squeezed, width)
        self.fc2 = Linear(width, width, bias=False)
        self.norm3 = nn.LayerNorm(width, eps=_EPS)
        changes = inputs != width
        self.shortcut = Linear(inputs, width, bias=False) if changes else nn.Identity()
        self.shortcut_norm = nn.LayerNorm(width, eps=_EPS) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block within each of the ``N`` frames."""
        y = F.silu(self.norm1(self.fc1(x)))
        y = rearrange(self.conv(rearrange(y, "n h w c -> n c h w")), "n c h w -> n h w c")
        y = F.silu(self.norm2(y))
        y = y * self.excite(F.silu(self.squeeze(y.mean(dim=(1, 2), keepdim=True)))).sigmoid()
        return F.silu(self.norm3(self.fc2(y)) + self.shortcut_norm(self.shortcut(x)))


@dataclass(frozen=True, kw_only=True)
class SpaceTimeConvConfig(ConnectorConfig):
    """Convolutions in space and time."""

    depth: CountOrZero = 4
    """Number of RegNet blocks before and after the 3D convolution."""
    reduction: tuple[Count, Count, Count] = (2, 2, 2)
    """Time, height and width of the 3D convolution's kernel, which is its stride."""

    def build(self, visual_width: int, width: int) -> SpaceTimeConv:
        """Build the connector with fresh weights."""
        return SpaceTimeConv(visual_width, width, depth=self.depth, reduction=self.reduction)


class SpaceTimeConv(Connector):
    """RegNet blocks within frames, a 3D convolution whose stride is its kernel, RegNet blocks again, two layers.

    ``reduction`` is that of time, height and width. Frames that do not fill a kernel repeat the last one; rows and
    columns that do not are left out, as by any convolution without padding. Without ``depth`` there are no blocks.
    """

    def __init__(
        self, inputs: int, width: int, *, depth: int = 4, reduction: tuple[int, int, int] = (2, 2, 2)
    ) -> None:
        super().__init__()
        self.reduction = reduction
        before = inputs if depth == 0 else width
        self.before = nn.Sequential(*(RegBlock(inputs if i == 0 else width, width) for i in range(depth)))
        self.conv = nn.Conv3d(before, width, reduction, stride=reduction)
        self.after = nn.Sequential(*(RegBlock(width, width) for _ in range(depth)))
        self.readout = MLP(width, width)

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip whose visual tokens lie on a grid."""
        t, h, w = self.reduction
        return -(-grid.t // t) * (grid.h // h) * (grid.w // w)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """``B N C`` tokens on a grid, to ``B M D`` on the reduced one, in row-major order."""
        frames = rearrange(tokens, "b (t h w) c -> b t h w c", t=grid.t, h=grid.h, w=grid.w)
        if short := -grid.t % self.reduction[0]:
            frames = torch.cat([frames, frames[:, -1:].expand(-1, short, -1, -1, -1)], dim=1)
        t = frames.shape[1]
        x = self.before(rearrange(frames, "b t h w c -> (b t) h w c"))
        x = F.silu(self.conv(rearrange(x, "(b t) h w c -> b c t h w", t=t)))
        t = x.shape[2]
        x = self.after(rearrange(x, "b c t h w -> (b t) h w c"))
        return self.readout(rearrange(x, "(b t) h w c -> b (t h w) c", t=t))


_BLOCK = {
    "fc1": "conv1.conv",
    "norm1": "conv1.bn",
    "conv": "conv2.conv",
    "norm2": "conv2.bn",
    "squeeze": "se.fc1",
    "excite": "se.fc2",
    "fc2": "conv3.conv",
    "norm3": "conv3.bn",
    "shortcut": "downsample.conv",
    "shortcut_norm": "downsample.bn",
}
_AROUND = {"conv": "sampler.0", "readout.fc1": "readout.0", "readout.fc2": "readout.2"}


def published_name(name: str) -> str:
    """The name in Video-LLaMA 2's files of a weight that a :class:`SpaceTimeConv` calls ``name``."""
    layer, _, kind = name.rpartition(".")
    if layer in _AROUND:
        return f"{_AROUND[layer]}.{kind}"
    stage, number, part = layer.split(".")
    return f"{'s1' if stage == 'before' else 's2'}.b{int(number) + 1}.{_BLOCK[part]}.{kind}"


def from_published(theirs: Mapping[str, Tensor], connector: SpaceTimeConv) -> Weights:
    """The weights of a connector from those of the authors' ``STCConnector``, whose layers are 1 x 1 convolutions.

    Raises:
        UserError: the names are others than the connector needs.
    """
    ours = connector.state_dict()
    names = {name: published_name(name) for name in ours}
    check_names("this connector", theirs, names.values())
    return {name: theirs[names[name]].reshape(tensor.shape) for name, tensor in ours.items()}
