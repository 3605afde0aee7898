"""Hiera: a transformer in stages of ever fewer and wider tokens that come in mask units, which may be left out.

Ryali et al. 2023, "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles": MViTv2 without
convolutions, relative positions and pooled keys. Early stages attend within a mask unit, late ones to everything, and
a stage begins by the maximum of every 2 x 2 queries.

Tokens of a unit lie in memory so that those of one pool are equally far apart: ``B U P D``, with ``P = 4 * R`` tokens
of which ``r``, ``R + r``, ``2R + r`` and ``3R + r`` become one. Pooling is then a maximum along an axis, attention
within units a batch, and an encoder of some of the units alone needs no masks.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, ShareBelowOne
from filmstrip.errors import UserError
from filmstrip.models.resnet3d import PIXEL_MEAN, PIXEL_STD
from filmstrip.nn.attention import attend
from filmstrip.nn.conv import channels_first
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import STD, LinearInit, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import Normalise
from filmstrip.nn.patches import conv_to_linear, linear_to_conv
from filmstrip.protocols import Features, Grid, Layout, check_video

_EPS = 1e-6
_POOLED = 4
"""Tokens of which a pool makes one: 2 x 2, of one time step."""


@dataclass(frozen=True, kw_only=True)
class HieraArchitecture:
    """The configuration of a Hiera."""

    width: Count
    """Channels of a token in the first stage; they double from stage to stage."""
    depths: tuple[Count, ...]
    """Blocks of each stage."""
    num_heads: Count = 1
    """Attention heads of a block in the first stage; they double from stage to stage."""
    num_frames: Count
    """Frames of a clip."""
    size: Count
    """Height and width of a clip, pixels."""
    patch_kernel: tuple[Count, Count, Count] = (3, 7, 7)
    """Frames, height and width of the pixels that a token is computed from; neighbours overlap."""
    patch_size: tuple[Count, Count, Count] = (2, 4, 4)
    """Frames, height and width from one token to the next."""
    unit_size: tuple[Count, Count, Count] = (1, 8, 8)
    """Tokens of a mask unit along time, height and width, in the first stage."""
    pools: CountOrZero = 3
    """Number of stages, from the second on, that begin by halving height and width."""
    local_stages: CountOrZero = 2
    """Number of stages, the first ones, that attend within mask units."""
    positions: Literal["separate", "joint"] = "separate"
    """Learnt positions: ``separate``, the sum of those of time and of place; ``joint``, one of each token."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers and of the embedding; ``glorot`` suits a narrow network that is trained from
    scratch."""


class UnitAttention(nn.Module):
    """Multi-head attention over mask units, within each or over all: ``B U P D -> B U P/stride outputs``.

    A ``stride`` of 4 pools the queries, and so the output, by their maximum.
    """

    def __init__(self, width: int, outputs: int, num_heads: int, *, stride: int, local: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.stride = stride
        self.local = local
        self.qkv = nn.Linear(width, 3 * outputs)
        self.out = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from the tokens, or from their pools, to all tokens of the unit or of the clip."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, units = pooled(q, self.stride), x.shape[1]
        split = "b u p (h d) -> (b u) h p d" if self.local else "b u p (h d) -> b h (u p) d"
        y = attend(*(rearrange(part, split, h=self.num_heads) for part in (q, k, v)))
        joined = "(b u) h p d -> b u p (h d)" if self.local else "b h (u p) d -> b u p (h d)"
        return self.out(rearrange(y, joined, u=units))


def pooled(x: Tensor, stride: int) -> Tensor:
    """The maximum of every ``stride`` tokens of ``B U P D`` that lie equally far apart: ``B U P/stride D``."""
    return x if stride == 1 else x.unflatten(2, (stride, -1)).amax(dim=2)


class HieraBlock(nn.Module):
    """Attention, then a feed-forward network, on normalised tokens, with residual connections: ``B U P D``.

    Where channels double, the attention's skip is a linear layer of the normalised tokens, pooled as queries are.
    """

    def __init__(
        self, width: int, outputs: int, num_heads: int, *, stride: int, local: bool, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attention = UnitAttention(width, outputs, num_heads, stride=stride, local=local)
        self.norm2 = nn.LayerNorm(outputs, eps=_EPS)
        self.mlp = MLP(outputs, 4 * outputs)
        self.widen = nn.Linear(width, outputs) if width != outputs else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        normed = self.norm1(x)
        skip = x if self.widen is None else pooled(self.widen(normed), self.attention.stride)
        x = skip + self.drop_path(self.attention(normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Hiera(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` whose grid shrinks and whose width grows by stages.

    It has no last norm: classifiers normalise the mean token, masked autoencoders what they fuse of all stages.
    """

    merges_patches: ClassVar[bool] = True
    """Whether tokens are of several patches each, so that the grid is not that of the patches."""

    def __init__(self, sizes: HieraArchitecture) -> None:
        super().__init__()
        stages = len(sizes.depths)
        self.clip = (sizes.num_frames, sizes.size)
        self.patch_size = tuple(sizes.patch_size)
        self.unit_size = tuple(sizes.unit_size)
        self.pools = sizes.pools
        self.depth = sum(sizes.depths)
        self.units = _units(sizes)
        """Number of mask units along time, height and width."""
        self.width = sizes.width * 2 ** (stages - 1)
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        self.embed = nn.Conv3d(
            3, sizes.width, sizes.patch_kernel, self.patch_size, tuple(k // 2 for k in sizes.patch_kernel)
        )
        self._make_positions(sizes)
        self.blocks = nn.ModuleList()
        for stage, depth in enumerate(sizes.depths):
            for i in range(depth):
                first = i == 0 and stage > 0
                self.blocks.append(
                    HieraBlock(
                        sizes.width * 2 ** (stage - first),
                        sizes.width * 2**stage,
                        sizes.num_heads * 2**stage,
                        stride=_POOLED if first and stage <= sizes.pools else 1,
                        # A stage's first block still attends as the stage before it: it has as many keys.
                        local=stage - first < sizes.local_stages,
                        drop_path=sizes.drop_path * len(self.blocks) / max(1, self.depth - 1),
                    )
                )
        self.ends = tuple(sum(sizes.depths[: stage + 1]) - 1 for stage in range(stages))
        """Index of the last block of each stage."""
        init_linear(self, sizes.linear_init)
        if sizes.linear_init == "glorot":
            nn.init.xavier_uniform_(self.embed.weight.data.flatten(1))
        else:
            nn.init.trunc_normal_(self.embed.weight, std=STD)
        nn.init.zeros_(self.embed.bias)

    def _make_positions(self, sizes: HieraArchitecture) -> None:
        grid = self.grid_after(0)
        empty = (1, grid.t * grid.h * grid.w, sizes.width)
        if sizes.positions == "separate":
            empty = (1, grid.h * grid.w, sizes.width)
            self.time_pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, grid.t, sizes.width), std=STD))
        embeddings = nn.Parameter(nn.init.trunc_normal_(torch.empty(empty), std=STD))
        setattr(self, "place_pos_embed" if sizes.positions == "separate" else "pos_embed", embeddings)

    def grid_after(self, pools: int) -> Grid:
        """The grid of tokens after so many pools."""
        t, h, w = (n * size for n, size in zip(self.units, self.unit_size))
        return Grid(t, h >> pools, w >> pools)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; ``layers`` also returns each block's tokens, on grids and
        widths of its own.

        ``visible`` (``B K``, indices of mask units, row-major) encodes these units alone, without a look at any pixel
        of others: tokens are those of the units one after the other.

        Raises:
            ValueError: the clip is not of the size that the network was built for.
        """
        seen = self._outputs(video, visible, range(self.depth) if layers else (self.depth - 1,))
        flat = [self._on_grid(tokens) if visible is None else tokens.flatten(1, 4) for tokens in seen]
        return Features(flat[-1], self.grid_after(self.pools), tuple(flat) if layers else ())

    def stages(self, video: Tensor, visible: Tensor) -> list[Tensor]:
        """The tokens at the end of each stage of visible mask units (``B K``), in their places: ``B K t h w D``."""
        return self._outputs(video, visible, self.ends)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the embedding, ``i + 1`` for block ``i``."""
        block = re.match(r"blocks\.(\d+)\.", name)
        return int(block[1]) + 1 if block else 0

    def layouts(self) -> tuple[Layout, ...]:
        """Those of the authors: of their classifiers, and of the model that is pretrained."""
        both = {"to_ours": _as_linear, "to_theirs": self._as_convolution}
        return (
            Layout(name="classifier", rules=(*_PUBLISHED, *_CLASSIFIER), after=(r"(head|norm)\..*", *_MAE), **both),
            Layout(name="pretraining", rules=(*_PUBLISHED, *_PRETRAINING), after=_MAE, **both),
        )

    def _as_convolution(self, name: str, tensor: Tensor) -> Tensor:
        found = re.match(_FUSION, name)
        if not found or not name.endswith("weight"):
            return tensor
        scale = 1 << (self.pools - int(found[1]))
        return linear_to_conv(tensor, (1, scale, scale))

    def _outputs(self, video: Tensor, visible: Tensor | None, wanted: Collection[int]) -> list[Tensor]:
        """The outputs of some blocks, by index, each unit's tokens in their places: ``B U t h w D``."""
        x, outputs = self._embedded(video, visible), []
        pools = 0
        for i, block in enumerate(self.blocks):
            x = block(x)
            pools += block.attention.stride == _POOLED
            if i in wanted:
                outputs.append(self._in_place(x, pools))
        return outputs

    def _embedded(self, video: Tensor, visible: Tensor | None) -> Tensor:
        """Tokens with their positions, ``B U P D``, of all units or of the visible ones."""
        check_video(video)
        frames, size = self.clip
        if (video.shape[1], *video.shape[3:]) != (frames, size, size):
            raise ValueError(
                f"this network was built for clips of {frames} x {size} x {size}, got "
                f"{video.shape[1]} x {video.shape[3]} x {video.shape[4]}: cut clips of the size that it was built for"
            )
        pixels, positions = self.normalise(video), self._positions()
        if visible is None:
            x = rearrange(self.embed(channels_first(pixels)), "b d t h w -> b (t h w) d")
            return self._by_pools(x) + positions
        x = self.embed_windows(self._windows(pixels, visible))
        x = rearrange(x, "(b k) d t h w -> (b k) (t h w) d", k=visible.shape[1])
        x = self._by_pools(x, units=(1, 1, 1)).view(*visible.shape, *positions.shape[2:])
        # An embedding, so that gradients of positions are summed in one order.
        return x + F.embedding(visible, positions[0].flatten(1)).view_as(x)

    def embed_windows(self, windows: Tensor) -> Tensor:
        """The embedding of pixels that bring their own surroundings, instead of zeros: without padding."""
        return F.conv3d(windows, self.embed.weight, self.embed.bias, self.patch_size)

    def _windows(self, pixels: Tensor, visible: Tensor) -> Tensor:
        """The pixels that the tokens of visible units are computed from, ``(B K) C t h w``; masked ones are zero.

        Windows of neighbouring units overlap: whole clips would be embedded for a tenth of their units otherwise.
        """
        pixels = rearrange(pixels, "b t c h w -> b c t h w")
        ut, uh, uw = self.units
        seen = torch.zeros(visible.shape[0], ut * uh * uw, dtype=pixels.dtype, device=pixels.device)
        seen = seen.scatter(1, visible, 1.0).view(-1, 1, ut, 1, uh, 1, uw, 1)
        pixels = rearrange(pixels, "b c (t p) (h q) (w r) -> b c t p h q w r", t=ut, h=uh, w=uw) * seen
        padding = [p for pad in reversed(self.embed.padding) for p in (pad, pad)]
        windows = F.pad(rearrange(pixels, "b c t p h q w r -> b c (t p) (h q) (w r)"), padding)
        for axis, (unit, step, kernel) in enumerate(zip(self.unit_size, self.patch_size, self.embed.kernel_size)):
            windows = windows.unfold(axis + 2, (unit - 1) * step + kernel, unit * step)
        clip = torch.arange(visible.shape[0], device=visible.device)[:, None]
        windows = rearrange(windows, "b c t h w p q r -> b t h w c p q r")
        return windows[clip, visible // (uh * uw), visible // uw % uh, visible % uw].flatten(0, 1)

    def _positions(self) -> Tensor:
        """The positions of all tokens, ``1 U P D``."""
        if hasattr(self, "pos_embed"):
            return self._by_pools(self.pos_embed)
        grid = self.grid_after(0)
        time = self.time_pos_embed.repeat_interleave(grid.h * grid.w, dim=1)
        return self._by_pools(time + self.place_pos_embed.repeat(1, grid.t, 1))

    def _by_pools(self, x: Tensor, units: tuple[int, int, int] | None = None) -> Tensor:
        """Row-major tokens ``B N D`` of a grid of units as ``B U P D``."""
        rows, columns = _offsets(self.pools)
        together = " ".join(f"{a} {b}" for a, b in zip(reversed(rows), reversed(columns)))
        return rearrange(
            x,
            f"b (ut t uh h {' '.join(rows)} uw w {' '.join(columns)}) d -> b (ut uh uw) ({together} t h w) d",
            **_sizes(units or self.units, self.unit_size, self.pools, self.pools),
        )

    def _in_place(self, x: Tensor, pools: int) -> Tensor:
        """Tokens ``B U P D`` after so many pools as ``B U t h w D``: the inverse within each unit."""
        rows, columns = _offsets(self.pools - pools)
        together = " ".join(f"{a} {b}" for a, b in zip(reversed(rows), reversed(columns)))
        sizes = _sizes(self.units, self.unit_size, self.pools, self.pools - pools)
        return rearrange(
            x,
            f"b u ({together} t h w) d -> b u t (h {' '.join(rows)}) (w {' '.join(columns)}) d",
            **{name: size for name, size in sizes.items() if name not in ("ut", "uh", "uw")},
        )

    def _on_grid(self, x: Tensor) -> Tensor:
        """Tokens ``B U t h w D`` of all units as row-major ones, ``B N D``."""
        ut, uh, uw = self.units
        return rearrange(x, "b (ut uh uw) t h w d -> b (ut t uh h uw w) d", ut=ut, uh=uh, uw=uw)


def _units(sizes: HieraArchitecture) -> Grid:
    """The number of mask units along each axis.

    Raises:
        UserError: units do not tile the clip, or cannot be pooled so often.
    """
    unit = tuple(p * u for p, u in zip(sizes.patch_size, sizes.unit_size))
    clip = (sizes.num_frames, sizes.size, sizes.size)
    if any(extent % p for extent, p in zip(clip, unit)):
        given, tiles = (" x ".join(map(str, extents)) for extents in (clip, unit))
        raise UserError(
            f"clips of {given} are not a multiple of mask units of {tiles} (frames, height, width): change "
            "num_frames, size or unit_size"
        )
    if sizes.pools >= len(sizes.depths) or any(size % 2**sizes.pools for size in sizes.unit_size[1:]):
        raise UserError(
            f"{len(sizes.depths)} stages of mask units of {tuple(sizes.unit_size)} tokens cannot be halved "
            f"{sizes.pools} times: pools has to be below the number of stages, and height and width of unit_size "
            f"multiples of {2**sizes.pools}"
        )
    return Grid(*(extent // p for extent, p in zip(clip, unit)))


def _offsets(pools: int) -> tuple[list[str], list[str]]:
    """Names of the axes of length two that pools remove, of rows and columns, those of the first pool last."""
    return [f"row{i}" for i in range(pools)], [f"column{i}" for i in range(pools)]


def _sizes(units: tuple[int, int, int], unit_size: tuple[int, int, int], pools: int, left: int) -> dict[str, int]:
    """Lengths of the axes of a rearrangement: ``left`` of the ``pools`` are still to come."""
    (ut, uh, uw), (t, h, w) = units, unit_size
    rows, columns = _offsets(left)
    return {"ut": ut, "uh": uh, "uw": uw, "t": t, "h": h >> pools, "w": w >> pools} | dict.fromkeys(rows + columns, 2)


_FUSION = r"fusion\.(\d+)\."
"""Names of the layers by which :mod:`filmstrip.systems.pretraining.hiera` fuses stages: ours are linear."""
_PUBLISHED = (
    (r"^encoder\.embed\.", "patch_embed.proj."),
    (r"^encoder\.place_pos_embed$", "pos_embed_spatial"),
    (r"^encoder\.time_pos_embed$", "pos_embed_temporal"),
    (r"^encoder\.", ""),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.widen\.", ".proj."),
)
_CLASSIFIER = ((r"^head\.", "head.projection."),)
_PRETRAINING = (
    (r"^fusion\.", "multi_scale_fusion_heads."),
    (r"^norm\.", "encoder_norm."),
    (r"^decoder\.project\.", "decoder_embed."),
    (r"^decoder\.mask_token$", "mask_token"),
    (r"^decoder\.pos_embed$", "decoder_pos_embed"),
    (r"^decoder\.blocks\.", "decoder_blocks."),
    (r"^decoder\.norm\.", "decoder_norm."),
    (r"^decoder\.head\.", "decoder_pred."),
)
"""Ours to theirs."""
_MAE = (r"multi_scale_fusion_heads\..*", r"encoder_norm\..*", r"decoder_.*", r"mask_token")
"""What the pretraining model has after the encoder."""


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """Stages are fused by convolutions there whose stride is their kernel."""
    return conv_to_linear(tensor) if re.match(_FUSION, name) and name.endswith("weight") else tensor
