"""Receptive field of each layer: frames, rows and columns of the clip that an output position depends on.

It is derived from the autograd graph of one forward pass without data, so that networks need no annotation. It is
known where activations pass only through layers with a known window and through pointwise operations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from filmstrip.data.config import Clip
from filmstrip.measure.measurable import Measurable
from filmstrip.protocols import find_encoder

Extent = tuple[int, int, int]
_WINDOWED = (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
# Pointwise operations, by the names of their nodes in the autograd graph.
_POINTWISE = re.compile(
    "Add|Alias|Cat|Clone|ConstantPadNd|Copy|CudnnBatchNorm|Div|Expand|FusedDropout|Gelu|Hardtanh|LeakyRelu|Mul|"
    "NativeBatchNorm|NativeDropout|Neg|Permute|Relu|ReshapeAlias|Sigmoid|Silu|Split|SplitWithSizes|Squeeze|Sub|ToCopy|"
    "Transpose|UnsafeView|Unsqueeze|View"
)


@dataclass(frozen=True)
class Layer:
    """One layer of a network, its output size for one clip, and its receptive field."""

    name: str
    channels: int
    size: Extent
    """Output size: frames, rows and columns."""
    field: Extent
    """Receptive field: frames, rows and columns of the clip, padding included."""
    chained: bool
    """Whether its input is exactly one layer, or the clip itself."""


def of_run(run: Measurable) -> list[Layer]:
    """The layers of a run's encoder, in order of execution; empty if a receptive field is unknown."""
    with torch.device("meta"):
        encoder = find_encoder(run.objective.build())
    return [] if encoder is None else layers_of(encoder, run.data.clip)


def layers_of(encoder: nn.Module, clip: Clip) -> list[Layer]:
    """As :func:`of_run`, for an encoder and its clip configuration; the last one is the mean over all positions."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        video = torch.empty(1, clip.num_frames, 3, clip.size, clip.size, requires_grad=True)
        trace = _Trace(video)
        state = {
            name: torch.empty(t.shape, dtype=t.dtype).requires_grad_(t.requires_grad)
            for name, t in (*encoder.named_parameters(), *encoder.named_buffers())
        }
        hooks = [
            hook
            for name, module in encoder.named_modules()
            if hasattr(module, "window") or isinstance(module, _WINDOWED)
            for hook in (
                module.register_forward_pre_hook(trace.before),
                module.register_forward_hook(trace.after),
            )
        ]
        try:
            tokens = torch.func.functional_call(encoder, state, video).tokens
        finally:
            for hook in hooks:
                hook.remove()
    if not trace.known or trace.parents(tokens) is None:
        return []
    whole = (clip.num_frames, clip.size, clip.size)
    return [*trace.layers, Layer("mean over all positions", tokens.shape[2], (1, 1, 1), whole, True)]


def is_chain(layers: list[Layer]) -> bool:
    """Whether the layers follow one another without branches."""
    return bool(layers) and all(layer.chained for layer in layers)


def table(layers: list[Layer], clip: Clip) -> Table:
    """A table of layers for display: sizes C x T x H x W, receptive fields T x H x W."""
    rows = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("layer", "size (C x T x H x W)", "receptive field (T x H x W)"):
        rows.add_column(column, header_style="bold")
    rows.add_row("input", _times((3, clip.num_frames, clip.size, clip.size)), "")
    for layer in layers:
        rows.add_row(layer.name, _times((layer.channels, *layer.size)), _times(layer.field))
    return rows


class _Trace:
    """Traces one forward pass, and accumulates the windows of its layers."""

    def __init__(self, video: Tensor) -> None:
        self.layers: list[Layer] = []
        self.known = True
        self._jumps: list[Extent] = []
        self._video = video
        self._made_by: dict[Any, int] = {}
        self._inputs: dict[int, list[int | None] | None] = {}
        self._inside = 0

    def before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inside += 1
        if self._inside == 1:
            self._inputs[id(module)] = self.parents(inputs[0])

    def after(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._inside -= 1
        if self._inside:  # part of a layer whose window is known as a whole
            return
        parents, x = self._inputs.pop(id(module)), inputs[0]
        if parents is None or x.ndim != 5 or output.ndim != 5:
            self.known = False
            return
        kernel, stride = window_of(module, _extent(x.shape[2:]))
        fields = [(1, 1, 1) if p is None else self.layers[p].field for p in parents]
        jumps = [(1, 1, 1) if p is None else self._jumps[p] for p in parents]
        # Branches that join have the same stride, unless one is broadcast over the other: then the finer one counts.
        jump = _extent(map(min, zip(*jumps)))
        field = _extent(
            max(f + (k - 1) * j for f, j in zip(f_axis, j_axis))
            for f_axis, j_axis, k in zip(zip(*fields), zip(*jumps), kernel)
        )
        self._made_by[output.grad_fn] = len(self.layers)
        self.layers.append(
            Layer(_called(module, kernel), output.shape[1], _extent(output.shape[2:]), field, len(parents) == 1)
        )
        self._jumps.append(_extent(j * s for j, s in zip(jump, stride)))

    def parents(self, tensor: Tensor) -> list[int | None] | None:
        """The layers that a tensor depends on, with none for the clip; none at all if an unknown operation is
        between."""
        found: dict[int | None, None] = {}
        for node in self._ancestors(tensor.grad_fn):
            if node in self._made_by:
                found[self._made_by[node]] = None
            elif hasattr(node, "variable"):
                if node.variable is self._video:
                    found[None] = None
            elif not _POINTWISE.fullmatch(re.sub(r"Backward\w*$", "", node.name())):
                return None
        return list(found) if tensor is not self._video else [None]

    def _ancestors(self, start: Any) -> Iterator[Any]:
        """The graph nodes before a tensor, up to the traced layers."""
        todo, seen = [start], set()
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            yield node
            if node not in self._made_by:
                todo += [before for before, _ in node.next_functions]


def window_of(module: nn.Module, size: Extent) -> tuple[Extent, Extent]:
    """Kernel and stride (t, h, w) of a layer over activations of ``size``; a global one has no stride."""
    if (own := getattr(module, "window", None)) is not None:
        return own(size)
    if isinstance(module, (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)):
        return size, size
    kernel, stride, dilation = (_triple(getattr(module, name, 1)) for name in ("kernel_size", "stride", "dilation"))
    return _extent((k - 1) * d + 1 for k, d in zip(kernel, dilation)), stride


def _called(module: nn.Module, kernel: Extent) -> str:
    """A label for a layer: its kind, window and channels."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return f"conv {_times(kernel)}, {module.in_channels} -> {module.out_channels}"
    if "Pool" in type(module).__name__:
        return f"{'max' if 'Max' in type(module).__name__ else 'mean'} pool {_times(kernel)}"
    return type(module).__name__


def _triple(value: int | tuple[int, ...]) -> Extent:
    return (value, value, value) if isinstance(value, int) else _extent(value)


def _extent(sizes: Iterable[int]) -> Extent:
    frames, rows, columns = sizes
    return frames, rows, columns


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))
