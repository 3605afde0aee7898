"""Video Swin: a transformer that attends within 3D windows, which shift by half their size from layer to layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, NotEmpty, ShareBelowOne
from filmstrip.errors import UserError
from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import LinearInit, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.nn.patches import PatchEmbed, conv_to_linear, linear_to_conv
from filmstrip.nn.relative_positions import Extent, RelativeBias
from filmstrip.protocols import Features, Grid, Layout, check_video
from filmstrip.weights.keymap import Weights, check_names, renamed


@dataclass(frozen=True, kw_only=True)
class VideoSwinArchitecture:
    """The configuration of a :class:`VideoSwin`."""

    width: Count
    """Channels of the first stage."""
    depths: Annotated[tuple[Count, ...], NotEmpty]
    """Blocks of each stage."""
    num_heads: Annotated[tuple[Count, ...], NotEmpty]
    """Attention heads of a block in each stage."""
    window: tuple[Count, Count, Count]
    """Positions of a window (t, h, w)."""
    patch_size: tuple[Count, Count, Count]
    """Frames, height and width of a tubelet, pixels."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""


def partition(x: Tensor, window: Sequence[int]) -> Tensor:
    """Cut ``B T H W D`` into windows of ``window`` positions (t, h, w): ``B windows N D``, in row-major order."""
    p, q, r = window
    return rearrange(x, "b (t p) (h q) (w r) d -> b (t h w) (p q r) d", p=p, q=q, r=r)


def join(windows: Tensor, window: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Put the windows of :func:`partition` together again, on a grid of ``sizes`` (t, h, w)."""
    (p, q, r), (t, h, w) = window, (size // n for size, n in zip(sizes, window))
    return rearrange(windows, "b (t h w) (p q r) d -> b (t p) (h q) (w r) d", t=t, h=h, w=w, p=p, q=q, r=r)


def fitted(sizes: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> tuple[Extent, Extent]:
    """A window and its shift where they are no larger than a grid of ``sizes``: one that covers an axis is not
    shifted along it."""
    pairs = [(size, 0) if size <= n else (n, s) for size, n, s in zip(sizes, window, shift)]
    return tuple(n for n, _ in pairs), tuple(s for _, s in pairs)


def neighbours(sizes: Sequence[int], window: Extent, shift: Extent, device: torch.device) -> Tensor | None:
    """Whether positions of a window see each other, ``windows N N``; none where all do.

    A grid is padded to whole windows and shifted around its ends: positions that only meet there, and padding, are
    kept apart. They are told apart by the part of each axis that they come from.
    """
    padded = [-(-size // n) * n for size, n in zip(sizes, window)]
    if not any(shift) and padded == list(sizes):
        return None
    parts = []
    for size, full, s in zip(sizes, padded, shift):
        place = (torch.arange(full, device=device) + s) % full
        # Wrapped around the end: what was before the shift; beyond the grid: padding.
        parts.append(torch.where(place >= size, 2, (place < s).long()))
    t, h, w = parts
    part = (9 * t[:, None, None] + 3 * h[:, None] + w)[None, ..., None]
    part = partition(part, window)[0, :, :, 0]
    return part[:, :, None] == part[:, None]


class WindowAttention(Attention):
    """Multi-head attention of each position to those of its window, with a learnt bias for each offset."""

    def __init__(self, width: int, num_heads: int, window: Extent, shift: Extent) -> None:
        super().__init__(width, num_heads)
        self.window = window
        self.shift = shift
        self.relative = RelativeBias(num_heads, window)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """``B T H W D -> B T H W D``; ``visible`` are the :func:`neighbours` on this grid."""
        sizes = x.shape[1:4]
        window, shift = fitted(sizes, self.window, self.shift)
        x = F.pad(x, (0, 0, *(n for size, w in zip(sizes[::-1], window[::-1]) for n in (0, -size % w))))
        padded = x.shape[1:4]
        if any(shift):
            x = x.roll([-s for s in shift], dims=(1, 2, 3))
        windows = partition(x, window)
        count = windows.shape[1]
        q, k, v = rearrange(self.qkv(windows), "b m n (three h d) -> three (b m) h n d", three=3, h=self.num_heads)
        bias = self.relative(window)
        if visible is not None:
            # Windows stand beside the heads, so that a batch shares what is added to the scores of each.
            q, k, v = (rearrange(y, "(b m) h n d -> b (m h) n d", m=count) for y in (q, k, v))
            bias = bias.masked_fill(~visible[:, None], float("-inf")).flatten(0, 1)
        y = rearrange(attend(q, k, v, bias=bias[None]), "b h n d -> b n h d")
        if visible is not None:
            y = rearrange(y, "b n (m h) d -> (b m) n h d", m=count)
        y = join(self.out(rearrange(y, "(b m) n h d -> b m n (h d)", m=count)), window, padded)
        if any(shift):
            y = y.roll(shift, dims=(1, 2, 3))
        t, h, w = sizes
        return y[:, :t, :h, :w]


class SwinBlock(nn.Module):
    """Window attention, then a feed-forward network, each on normalised positions and added back."""

    def __init__(self, width: int, num_heads: int, window: Extent, shift: Extent, *, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, num_heads, window, shift)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """``B T H W D -> B T H W D``; ``visible`` as in :class:`WindowAttention`."""
        x = x + self.drop_path(self.attention(self.norm1(x), visible))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Merge(nn.Module):
    """Two by two positions of a frame become one with twice the channels: ``B T H W D -> B T H/2 W/2 2D``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Raises:
        ValueError: height or width is odd.
        """
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"a grid of {tuple(x.shape[1:4])} (t, h, w) cannot be halved in height and width")
        # Across within down: the order that published weights have.
        return self.reduce(self.norm(rearrange(x, "b t (h p) (w q) d -> b t h w (q p d)", p=2, q=2)))


class VideoSwin(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` of patches whose grid halves and whose width doubles by stages.

    Liu et al. 2022. Every second block's windows are shifted by half their size. Any clip that the patches and three
    halvings tile will do.
    """

    merges_patches: ClassVar[bool] = True
    """Whether tokens are of several patches each, so that the grid is not that of the patches."""

    def __init__(self, config: VideoSwinArchitecture) -> None:
        super().__init__()
        self.depths = config.depths
        self.depth = sum(config.depths)
        self.patch_size = config.patch_size
        self.window = config.window
        self.shift = tuple(n // 2 for n in config.window)
        width = config.width
        self.embed = PatchEmbed(width, config.patch_size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.embed_norm = nn.LayerNorm(width)
        self.stages, self.merges = nn.ModuleList(), nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(config.depths, config.num_heads)):
            before = sum(config.depths[:stage])
            blocks = nn.ModuleList(
                SwinBlock(
                    width,
                    heads,
                    config.window,
                    self.shift if i % 2 else (0, 0, 0),
                    drop_path=config.drop_path * (before + i) / max(1, self.depth - 1),
                )
                for i in range(depth)
            )
            self.stages.append(nn.ModuleDict({"blocks": blocks}))
            if stage < len(config.depths) - 1:
                self.merges.append(Merge(width))
                width *= 2
        self.width = width
        self.norm = nn.LayerNorm(width)
        init_linear(self, config.linear_init)

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video; ``layers`` also returns each block's tokens, on grids and widths of its own."""
        check_video(video, multiple=self.patch_size)
        p, q, r = self.patch_size
        t, h, w = video.shape[1] // p, video.shape[3] // q, video.shape[4] // r
        x = rearrange(self.embed_norm(self.embed(video)), "b (t h w) d -> b t h w d", t=t, h=h, w=w)
        seen = []
        for i, stage in enumerate(self.stages):
            sizes = x.shape[1:4]
            whole, shifted = (
                neighbours(sizes, *fitted(sizes, self.window, shift), x.device) for shift in ((0, 0, 0), self.shift)
            )
            for block in stage["blocks"]:
                x = block(x, shifted if any(block.attention.shift) else whole)
                if layers:
                    seen.append(x.flatten(1, 3))
            if i < len(self.merges):
                x = self.merges[i](x)
        return Features(self.norm(x).flatten(1, 3), Grid(*x.shape[1:4]), tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for the embedding, ``i + 1`` for the ``i``-th block of all stages."""
        if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name):
            return sum(self.depths[: int(match[1])]) + int(match[2]) + 1
        if match := re.match(r"merges\.(\d+)\.", name):
            return sum(self.depths[: int(match[1]) + 1])
        return 0 if name.startswith("embed") else self.depth + 1

    def layouts(self) -> tuple[Layout, ...]:
        """MMAction2's, in which the authors released."""
        return (
            Layout(
                name="Video Swin",
                rules=_PUBLISHED,
                after=_HEADS,
                spare=_CONSTANT,
                to_ours=self._from_theirs,
                to_theirs=self._to_theirs,
            ),
        )

    def _from_theirs(self, name: str, tensor: Tensor) -> Tensor:
        """Patches are projected by a convolution there, and biases of offsets lie in one table."""
        if name.endswith("embed.proj.weight"):
            return conv_to_linear(tensor)
        if name.endswith("relative.bias"):
            t, h, w = (2 * n - 1 for n in self.window)
            if len(tensor) != t * h * w:
                raise UserError(
                    f"the file's windows have {len(tensor)} offsets, those of {self.window} have {t * h * w}"
                )
            return rearrange(tensor, "(t h w) n -> n t h w", t=t, h=h, w=w)
        return tensor

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        if name.endswith("embed.proj.weight"):
            return linear_to_conv(tensor, self.patch_size)
        return rearrange(tensor, "n t h w -> (t h w) n") if name.endswith("relative.bias") else tensor


_HEADS = (r"(?:cls_)?head\..*",)
_CONSTANT = (r".*\.relative_position_index", r".*\.attn_mask")
"""What files hold beside weights: it follows from the sizes."""
_PUBLISHED = (
    (r"^encoder\.", ""),
    (r"^embed\.", "backbone.patch_embed."),
    (r"^embed_norm\.", "backbone.patch_embed.norm."),
    (r"^stages\.", "backbone.layers."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.relative\.bias$", ".attn.relative_position_bias_table"),
    (r"\.attention\.", ".attn."),
    (r"^merges\.(\d+)\.reduce\.", r"backbone.layers.\1.downsample.reduction."),
    (r"^merges\.(\d+)\.norm\.", r"backbone.layers.\1.downsample.norm."),
    (r"^norm\.", "backbone.norm."),
    (r"^head\.", "cls_head.fc_cls."),
)
"""Ours to theirs."""


def inflate_swin(flat: Mapping[str, Tensor], network: VideoSwin) -> Weights:
    """Weights for ``network`` from those of a 2D Swin (``layers.0.blocks.0.attn.qkv.weight``), all but the head's.

    Liu et al. 2022, section 3.3: the projection of patches is repeated over the frames of a patch and divided by
    their number, the biases of offsets are repeated over time, and resized where windows differ. Of a still video
    each position then sees what it sees in a frame.

    Raises:
        UserError: names that the network needs are missing, there are others, or a tensor has a shape that does not
            fit.
    """
    flat = flat.get("model", flat)
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("embed.normalise.")}
    names = {name: renamed(name, _PUBLISHED).removeprefix("backbone.") for name in state}
    what = "this is not a 2D Swin of this size: the file"
    check_names(what, flat, names.values(), spare=(*_CONSTANT, *_HEADS))
    inflated = {}
    for name, wanted in state.items():
        key, tensor = names[name], flat[names[name]]
        if name == "embed.proj.weight":
            frames = network.patch_size[0]
            tensor = conv_to_linear(tensor[:, :, None].repeat(1, 1, frames, 1, 1) / frames)
        elif name.endswith("relative.bias"):
            side = round(len(tensor) ** 0.5)
            table = rearrange(tensor, "(h w) n -> n 1 h w", h=side)
            if table.shape[2:] != wanted.shape[2:]:
                table = F.interpolate(table, size=wanted.shape[2:], mode="bicubic")
            tensor = table.expand(-1, wanted.shape[1], -1, -1).contiguous()
        if tensor.shape != wanted.shape:
            raise UserError(f"{key} is {tuple(tensor.shape)} there, which does not make {tuple(wanted.shape)} here")
        inflated[name] = tensor
    return inflated
