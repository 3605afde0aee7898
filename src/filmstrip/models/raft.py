"""RAFT: optical flow by all pairs of positions of two frames, corrected step by step.

Features of both frames at an eighth of their size are compared position by position, once. A recurrent unit then
looks, at four scales, at the similarities around where each position is believed to have gone, and corrects that.
Teed & Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020, in its two published sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.protocols import Layout, as_float, check_video

Norm = Literal["instance", "batch", "none"]

_STRIDE = 8  # of features, and the factor of upsampling
_LEVELS = 4
_MASK_WIDTH = 256
_MASK_SCALE = 0.25  # keeps gradients of the upsampling small beside those of the flow
_SMALLEST = 128
"""Height and width in pixels from which on even the coarsest level of similarities has several positions."""
_MOST_SIMILARITIES = 2**27
"""Similarities of frames that are held at once: half a gigabyte."""


@dataclass(frozen=True, kw_only=True)
class RAFTArchitecture:
    """The configuration of a :class:`RAFT`."""

    widths: tuple[Count, Count, Count, Count]
    """Channels of the encoders' first convolution and of their three levels."""
    bottleneck: bool
    """Whether their blocks are bottlenecks of three convolutions, instead of two convolutions."""
    feature_dim: Count
    """Dimension of the features that are compared."""
    context_norm: Norm
    """Normalisation of the encoder of the context; that of the features has instance normalisation."""
    context_dim: Count
    """Dimension of what the first frame tells the recurrent unit in every step."""
    hidden_dim: Count
    """Dimension of the recurrent unit's state."""
    radius: Count
    """Positions around the believed one, to each side, whose similarities are seen."""
    similarity_widths: tuple[Count, ...]
    """Channels of the convolutions of these similarities."""
    flow_widths: tuple[Count, ...]
    """Channels of the convolutions of the flow so far."""
    motion_dim: Count
    """Dimension of both together."""
    separable: bool
    """Whether the recurrent unit is two, along rows and along columns, instead of one of 3 x 3 positions."""
    head_width: Count
    """Channels between the state and the correction of the flow."""
    learnt_upsampling: bool
    """Whether each pixel's flow is a learnt mean of that of nine positions, instead of interpolated."""


LARGE = RAFTArchitecture(
    widths=(64, 64, 96, 128),
    bottleneck=False,
    feature_dim=256,
    context_norm="batch",
    context_dim=128,
    hidden_dim=128,
    radius=4,
    similarity_widths=(256, 192),
    flow_widths=(128, 64),
    motion_dim=128,
    separable=True,
    head_width=256,
    learnt_upsampling=True,
)
"""5.3M parameters."""
SMALL = RAFTArchitecture(
    widths=(32, 32, 64, 96),
    bottleneck=True,
    feature_dim=128,
    context_norm="none",
    context_dim=64,
    hidden_dim=96,
    radius=3,
    similarity_widths=(96,),
    flow_widths=(64, 32),
    motion_dim=82,
    separable=False,
    head_width=128,
    learnt_upsampling=False,
)
"""1.0M parameters."""


class ConvNorm(nn.Module):
    """A convolution that keeps the size, up to its stride, and a normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: Norm, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "none": nn.Identity}[norm](outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C' H/stride W/stride``."""
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    """Two convolutions, or three of a bottleneck, added to the input."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        inner = outputs // 4
        layers = [(outputs, 3, stride), (outputs, 3, 1)]
        if bottleneck:
            layers = [(inner, 1, 1), (inner, 3, stride), (outputs, 1, 1)]
        self.convs = nn.ModuleList()
        given = inputs
        for width, kernel, step in layers:
            self.convs.append(ConvNorm(given, width, kernel, norm, stride=step))
            given = width
        self.shortcut = nn.Identity() if stride == 1 else ConvNorm(inputs, outputs, 1, norm, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C' H/stride W/stride``."""
        y = x
        for conv in self.convs:
            y = F.relu(conv(y))
        return F.relu(self.shortcut(x) + y)


class FrameEncoder(nn.Module):
    """Features of each frame, at an eighth of its height and width."""

    def __init__(self, config: RAFTArchitecture, outputs: int, norm: Norm) -> None:
        super().__init__()
        first, *widths = config.widths
        self.stem = ConvNorm(3, first, 7, norm, stride=2)
        self.levels = nn.ModuleList()
        inputs = first
        for width, stride in zip(widths, (1, 2, 2)):
            blocks = [
                ResidualBlock(given, width, norm, stride=step, bottleneck=config.bottleneck)
                for given, step in ((inputs, stride), (width, 1))
            ]
            self.levels.append(nn.Sequential(*blocks))
            inputs = width
        self.out = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``N 3 H W -> N outputs H/8 W/8``."""
        x = F.relu(self.stem(x))
        for level in self.levels:
            x = level(x)
        return self.out(x)


class MotionEncoder(nn.Module):
    """What is seen around the believed places, and the flow so far, as one map, whose last channels are the flow."""

    def __init__(self, config: RAFTArchitecture) -> None:
        super().__init__()
        inputs = _LEVELS * (2 * config.radius + 1) ** 2
        self.similarity = _convolutions(inputs, config.similarity_widths, first=1)
        self.flow = _convolutions(2, config.flow_widths, first=7)
        both = config.similarity_widths[-1] + config.flow_widths[-1]
        self.out = nn.Conv2d(both, config.motion_dim - 2, 3, padding=1)

    def forward(self, flow: Tensor, similarities: Tensor) -> Tensor:
        """``N 2 h w`` and ``N levels*window h w`` to ``N motion_dim h w``."""
        seen, moved = similarities, flow
        for conv in self.similarity:
            seen = F.relu(conv(seen))
        for conv in self.flow:
            moved = F.relu(conv(moved))
        return torch.cat([F.relu(self.out(torch.cat([seen, moved], dim=1))), flow], dim=1)


class ConvGRU(nn.Module):
    """A gated recurrent unit at each position, which sees its neighbours through convolutions."""

    def __init__(self, inputs: int, hidden: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.update, self.reset, self.candidate = (
            nn.Conv2d(hidden + inputs, hidden, kernel, padding=padding) for _ in range(3)
        )

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        """The next state ``N hidden h w``."""
        both = torch.cat([state, x], dim=1)
        update, reset = torch.sigmoid(self.update(both)), torch.sigmoid(self.reset(both))
        candidate = torch.tanh(self.candidate(torch.cat([reset * state, x], dim=1)))
        return (1 - update) * state + update * candidate


class RAFT(nn.Module):
    """The flow between neighbouring frames of ``B T 3 H W`` video."""

    def __init__(self, config: RAFTArchitecture) -> None:
        super().__init__()
        self.hidden_dim, self.radius = config.hidden_dim, config.radius
        self.features = FrameEncoder(config, config.feature_dim, "instance")
        self.context = FrameEncoder(config, config.hidden_dim + config.context_dim, config.context_norm)
        self.motion = MotionEncoder(config)
        kernels = ((1, 5), (5, 1)) if config.separable else ((3, 3),)
        inputs = config.motion_dim + config.context_dim
        self.units = nn.ModuleList(ConvGRU(inputs, config.hidden_dim, kernel) for kernel in kernels)
        self.head = _convolutions(config.hidden_dim, (config.head_width, 2), first=3)
        self.mask = None
        if config.learnt_upsampling:
            self.mask = nn.ModuleList(
                [nn.Conv2d(config.hidden_dim, _MASK_WIDTH, 3, padding=1), nn.Conv2d(_MASK_WIDTH, 9 * _STRIDE**2, 1)]
            )
        for module in self.modules():
            if isinstance(module, FrameEncoder):
                _initialise(module)

    def forward(self, video: Tensor, *, updates: int = 12, every: bool = False) -> list[Tensor]:
        """The flow ``B T-1 2 H W`` in pixels, to the right and down, after the last update, or after ``every`` one.

        Frames are uint8 or 0..1. Gradients do not pass from one update's flow into the next one, as published.

        Raises:
            ValueError: height and width are no multiples of 8.
        """
        check_video(video, multiple=(1, _STRIDE, _STRIDE))
        batch, pairs = video.shape[0], video.shape[1] - 1
        pixels = 2 * as_float(video) - 1
        features = self.features(pixels.flatten(0, 1)).unflatten(0, (batch, -1))
        told = self.context(pixels[:, :-1].flatten(0, 1))
        state, context = torch.tanh(told[:, : self.hidden_dim]), F.relu(told[:, self.hidden_dim :])
        pyramid = _pyramid(features[:, :-1].flatten(0, 1), features[:, 1:].flatten(0, 1))
        here = _positions(state)
        flow, found = torch.zeros_like(here).expand(len(state), -1, -1, -1), []
        for step in range(updates):
            flow = flow.detach()
            motion = self.motion(flow, _around(pyramid, here + flow, self.radius))
            for unit in self.units:
                state = unit(state, torch.cat([context, motion], dim=1))
            flow = flow + self._correction(state)
            if every or step == updates - 1:
                found.append(self._enlarged(flow, state).unflatten(0, (batch, pairs)))
        return found

    @torch.no_grad()
    def flow(self, video: Tensor, *, updates: int = 12) -> Tensor:
        """The flow ``B T-1 2 H W`` in pixels, float32, of frames of any size; no gradient.

        Small frames are enlarged to 128 pixels first, then the borders are repeated up to a multiple of 8. Few frames
        are held at once.
        """
        check_video(video)
        batch, frames, _, height, width = video.shape
        if frames < 2:
            return video.new_empty((batch, 0, 2, height, width), dtype=torch.float32)
        factor = max(1.0, _SMALLEST / min(height, width))
        size = [round(factor * side) for side in (height, width)]
        positions = -(-size[0] // _STRIDE) * -(-size[1] // _STRIDE)
        pairs = max(_MOST_SIMILARITIES // positions**2, 1)
        parts = []
        for clip in video.split(max(pairs // (frames - 1), 1)):
            spans = range(0, frames - 1, pairs)
            parts.append(torch.cat([self._flow(clip[:, i : i + pairs + 1], size, updates) for i in spans], dim=1))
        return torch.cat(parts)

    def _flow(self, video: Tensor, size: list[int], updates: int) -> Tensor:
        """The flow of few frames, scaled to ``size``: ``B T-1 2 H W``, in pixels of frames as they were."""
        batch, _, _, height, width = video.shape
        frames = as_float(video, torch.float32).flatten(0, 1)
        if size != [height, width]:
            frames = F.interpolate(frames, size, mode="bilinear", align_corners=False)
        down, right = (-side % _STRIDE for side in size)
        top, left = down // 2, right // 2
        frames = F.pad(frames, (left, right - left, top, down - top), mode="replicate")
        (flow,) = self(frames.unflatten(0, (batch, -1)), updates=updates)
        flow = flow[..., top : top + size[0], left : left + size[1]].flatten(0, 1)
        if size != [height, width]:
            flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False, antialias=True)
            flow = flow * flow.new_tensor([width / size[1], height / size[0]]).view(2, 1, 1)
        return flow.unflatten(0, (batch, -1))

    def _correction(self, state: Tensor) -> Tensor:
        first, last = self.head
        return last(F.relu(first(state)))

    def _enlarged(self, flow: Tensor, state: Tensor) -> Tensor:
        """Flow ``N 2 h w`` of positions as that of pixels, ``N 2 8h 8w``."""
        flow = _STRIDE * flow
        if self.mask is None:
            return F.interpolate(flow, scale_factor=_STRIDE, mode="bilinear", align_corners=True)
        first, last = self.mask
        weights = _MASK_SCALE * last(F.relu(first(state)))
        weights = rearrange(weights, "n (k p q) h w -> n 1 k p q h w", k=9, p=_STRIDE).softmax(dim=2)
        near = rearrange(F.unfold(flow, 3, padding=1), "n (c k) (h w) -> n c k 1 1 h w", k=9, h=flow.shape[2])
        return rearrange((weights * near).sum(dim=2), "n c p q h w -> n c (h p) (w q)")

    def layouts(self) -> tuple[Layout, ...]:
        """torchvision's (``raft_large_C_T_SKHT_V2``, ``raft_small_C_T_V2`` and the others)."""
        return (Layout(name="torchvision", rules=_RULES),)


def size_of(theirs: Mapping[str, Tensor]) -> RAFTArchitecture:
    """Which of the two published networks weights in torchvision's layout are of: only the large one has a mask."""
    return LARGE if any("mask_predictor." in name for name in theirs) else SMALL


def _convolutions(inputs: int, widths: tuple[int, ...], first: int) -> nn.ModuleList:
    """Convolutions that keep the size, the first one with another kernel than 3."""
    given = (inputs, *widths[:-1])
    kernels = (first, *(3 for _ in widths[1:]))
    return nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2) for a, b, k in zip(given, widths, kernels))


def _initialise(encoder: FrameEncoder) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _positions(like: Tensor) -> Tensor:
    """Column and row of each position of maps ``N C h w``: ``1 2 h w``."""
    h, w = like.shape[-2:]
    row, column = torch.meshgrid(
        torch.arange(h, device=like.device), torch.arange(w, device=like.device), indexing="ij"
    )
    return torch.stack([column, row])[None].to(like.dtype)


def _pyramid(first: Tensor, second: Tensor) -> list[Tensor]:
    """Similarities of each position of ``N C h w`` maps to all of the other's, at four scales of the latter.

    Each is ``(N h w) 1 h' w'``.
    """
    shape = second.shape[-2:]
    similar = torch.einsum("ncp,ncq->npq", first.flatten(2), second.flatten(2)) / first.shape[1] ** 0.5
    levels = [rearrange(similar, "n p (h w) -> (n p) 1 h w", h=shape[0], w=shape[1])]
    for _ in range(_LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def _around(pyramid: list[Tensor], places: Tensor, radius: int) -> Tensor:
    """Similarities in the window around ``places`` (``N 2 h w``: column, row) of each level: ``N L*window h w``."""
    batch, _, h, w = places.shape
    steps = torch.arange(-radius, radius + 1, device=places.device, dtype=places.dtype)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)  # columns, then rows, as published
    centre = rearrange(places, "n c h w -> (n h w) 1 1 c")
    seen = []
    for level, similar in enumerate(pyramid):
        size = torch.tensor([similar.shape[-1], similar.shape[-2]], device=places.device, dtype=places.dtype)
        grid = (2 * (centre / 2**level + window) + 1) / size - 1
        seen.append(F.grid_sample(similar, grid, align_corners=False).flatten(1))
    return rearrange(torch.cat(seen, dim=1), "(n h w) k -> n k h w", n=batch, h=h, w=w)


_RULES = (
    ("^features\\.", "feature_encoder."),
    ("^context\\.", "context_encoder."),
    (r"\.stem\.", ".convnormrelu."),
    *((rf"\.levels\.{i}\.", f".layer{i + 1}.") for i in range(3)),
    *((rf"\.convs\.{i}\.", f".convnormrelu{i + 1}.") for i in range(3)),
    (r"\.shortcut\.", ".downsample."),
    (r"^((?:feature|context)_encoder\..*)\.conv\.", r"\1.0."),
    (r"^((?:feature|context)_encoder\..*)\.norm\.", r"\1.1."),
    (r"^((?:feature|context)_encoder)\.out\.", r"\1.conv."),
    *((rf"^motion\.similarity\.{i}\.", f"update_block.motion_encoder.convcorr{i + 1}.0.") for i in range(2)),
    *((rf"^motion\.flow\.{i}\.", f"update_block.motion_encoder.convflow{i + 1}.0.") for i in range(2)),
    (r"^motion\.out\.", "update_block.motion_encoder.conv.0."),
    *((rf"^units\.{i}\.", f"update_block.recurrent_block.convgru{i + 1}.") for i in range(2)),
    (r"\.update\.", ".convz."),
    (r"\.reset\.", ".convr."),
    (r"\.candidate\.", ".convq."),
    *((rf"^head\.{i}\.", f"update_block.flow_head.conv{i + 1}.") for i in range(2)),
    (r"^mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^mask\.1\.", "mask_predictor.conv."),
)
