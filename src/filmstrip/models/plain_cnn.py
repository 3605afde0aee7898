"""Plain chains of convolutions and poolings over video: the first video networks, and C3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.nn.conv import SpatialConv, channels_first, tokens_of
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from filmstrip.protocols import Features, Grid, Layout, check_video

Size = tuple[Count, Count, Count]
"""Frames, rows and columns."""


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """A convolution, a normalisation, a ReLU, and perhaps a max pooling; all sizes are (t, h, w)."""

    width: Count
    """Output channels."""
    kernel: Size = (3, 3, 3)
    """Window of the convolution."""
    stride: Size = (1, 1, 1)
    """Stride of the convolution."""
    valid_time: bool = False
    """Whether time has no padding; otherwise, and in space, padding keeps the size."""
    norm: Literal["batch", "response", "none"] = "batch"
    """Normalisation; ``response`` is AlexNet's, and without ``batch`` the convolution has a bias."""
    pool: Size | None = None
    """Window of the max pooling."""
    pool_stride: Size | None = None
    """Stride of the max pooling; by default its window."""
    pool_padding: tuple[CountOrZero, CountOrZero, CountOrZero] = (0, 0, 0)
    """Padding of the max pooling."""


C3D = (
    ConvLayer(width=64, norm="none", pool=(1, 2, 2)),
    ConvLayer(width=128, norm="none", pool=(2, 2, 2)),
    ConvLayer(width=256, norm="none"),
    ConvLayer(width=256, norm="none", pool=(2, 2, 2)),
    ConvLayer(width=512, norm="none"),
    ConvLayer(width=512, norm="none", pool=(2, 2, 2)),
    ConvLayer(width=512, norm="none"),
    ConvLayer(width=512, norm="none", pool=(2, 2, 2)),
)
C3D_RELEASED = (*C3D[:-1], replace(C3D[-1], pool_padding=(0, 1, 1)))
"""Tran et al. 2015: the layers of the paper's table, and those that were released, with zeros in the last pooling."""


class PlainCNN(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` that is one chain: a clip through ``layers``, in order.

    ``mean`` and ``std`` have an entry for each channel of the clip: three of RGB, or two directions of flow.
    """

    def __init__(
        self,
        layers: Sequence[ConvLayer],
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.width = layers[-1].width
        self.depth = len(layers) - 1
        self.normalise = Normalise(mean, std)
        self.channels = len(mean)
        inputs = [self.channels, *(layer.width for layer in layers[:-1])]
        self.layers = nn.ModuleList(_layer(channels, layer) for channels, layer in zip(inputs, layers))

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each layer's tokens, on grids and widths of its own."""
        check_video(video, channels=self.channels)
        x = channels_first(self.normalise(video))
        seen = []
        for layer in self.layers:
            x = layer(x)
            if layers:
                seen.append(tokens_of(x))
        return Features(tokens_of(x), Grid(*x.shape[2:]), tuple(seen))

    def grid_of(self, num_frames: int, size: int) -> Grid:
        """The grid of tokens of clips of ``num_frames`` frames of ``size`` x ``size`` pixels."""
        shape = [num_frames, size, size]
        for layer in self.layers:
            for module in layer:
                if isinstance(module, (nn.Conv3d, nn.MaxPool3d, SpatialConv)):
                    shape = _output_size(module, shape)
        return Grid(*shape)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network, counted from 0."""
        return int(name.split(".")[1]) if name.startswith("layers.") else 0

    def layouts(self) -> tuple[Layout, ...]:
        """Caffe's names for C3D, whose weights were released."""
        return (Layout(name="C3D", rules=_PUBLISHED, after=(r"fc[678]\..*",)),)


_CONVOLUTIONS = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
_PUBLISHED = (
    (r"^encoder\.", ""),
    *((rf"^layers\.{i}\.0\.", f"{name}.") for i, name in enumerate(_CONVOLUTIONS)),
    (r"^hidden\.0\.", "fc6."),
    (r"^hidden\.\d+\.", "fc7."),
    (r"^head\.", "fc8."),
)
"""Ours to theirs."""


def _layer(inputs: int, layer: ConvLayer) -> nn.Sequential:
    """One link of the chain."""
    bias = layer.norm != "batch"
    within_frames = layer.kernel[0] == layer.stride[0] == 1 and layer.kernel[1] == layer.kernel[2]
    if within_frames and layer.stride[1] == layer.stride[2]:  # much faster than three dimensions on a CPU
        conv: nn.Module = SpatialConv(inputs, layer.width, kernel=layer.kernel[1], stride=layer.stride[1], bias=bias)
    else:
        t, h, w = (k // 2 for k in layer.kernel)
        padding = (0 if layer.valid_time else t, h, w)
        conv = nn.Conv3d(inputs, layer.width, layer.kernel, stride=layer.stride, padding=padding, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if bias:
        nn.init.zeros_(conv.bias)
    parts = [conv]
    if layer.norm == "batch":
        parts.append(nn.BatchNorm3d(layer.width))
    parts.append(nn.ReLU(inplace=True))
    if layer.norm == "response":
        parts.append(nn.LocalResponseNorm(5))
    if layer.pool is not None:
        parts.append(nn.MaxPool3d(layer.pool, stride=layer.pool_stride, padding=layer.pool_padding))
    return nn.Sequential(*parts)


def _output_size(module: nn.Module, shape: Sequence[int]) -> list[int]:
    def whole(value: int | Sequence[int], outside: int) -> Sequence[int]:
        value = (value,) * 3 if isinstance(value, int) else tuple(value)
        return value if len(value) == 3 else (outside, *value)

    kernel, stride, padding = whole(module.kernel_size, 1), whole(module.stride, 1), whole(module.padding, 0)
    return [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding)]
