"""Plain video transformers, which start from an image's: over frames apart, over space and time, frames then time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, Rate, ShareBelowOne
from filmstrip.models.vit import grid_of_tiles
from filmstrip.nn.block import Block, run_blocks
from filmstrip.nn.initialisation import STD, LinearInit, init_linear
from filmstrip.nn.mlp import GELU
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.nn.patches import PatchEmbed
from filmstrip.nn.space_time import DividedBlock, SpaceResidualBlock
from filmstrip.protocols import Features, Grid, check_video

TubeletInit = Literal["central_frame", "inflate"]


@dataclass(frozen=True, kw_only=True)
class TransformerArchitecture:
    """The configuration of a plain video transformer."""

    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    num_frames: Count
    """Frames of a clip."""
    size: Count
    """Height and width of a clip, pixels."""
    patch_size: Count | tuple[Count, Count, Count]
    """Frames, height and width of a tubelet, or height and width of a patch of one frame."""
    mlp_ratio: Rate = 4.0
    """Width of a feed-forward network, relative to that of its tokens."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    norm_eps: Rate = 1e-6
    """Constant that normalisations add to the variance."""
    gelu: GELU = "exact"
    """Form of the activation."""
    mean: tuple[AnyNumber, AnyNumber, AnyNumber] = IMAGENET_MEAN
    """Mean RGB, subtracted from pixels in 0..1."""
    std: tuple[Rate, Rate, Rate] = IMAGENET_STD
    """Standard deviation of RGB, by which pixels are divided."""
    tubelet_init: TubeletInit = "central_frame"
    """Start of the tubelets' filter from an image's patch filter: in the central frame, or inflated over all."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""

    @property
    def tubelet(self) -> tuple[int, int, int]:
        """Frames, height and width of the pixels of a token."""
        patch = self.patch_size
        return patch if isinstance(patch, tuple) else (1, patch, patch)


class _Patches(nn.Module):
    """The input of all networks here: tubelets to tokens on a fixed grid, with pixels normalised inside."""

    def __init__(self, config: TransformerArchitecture, *, patch_bias: bool = True) -> None:
        super().__init__()
        self.width, self.depth = config.width, config.depth
        self.patch_size = config.tubelet
        self.tubelet_init = config.tubelet_init
        self.grid = grid_of_tiles(config.num_frames, config.size, config.tubelet)
        self.embed = PatchEmbed(config.width, config.tubelet, mean=config.mean, std=config.std, bias=patch_bias)

    def _tokens(
        self, video: Tensor, any_length: bool = False, visible: Tensor | None = None, shorter: bool = False
    ) -> tuple[Tensor, Grid]:
        """The tubelets of ``B T C H W`` video, ``B N D``, or those at ``visible`` (``B K``), and the whole grid.

        It may have ``any_length``, or be ``shorter`` than the network was built for.

        Raises:
            ValueError: the video has another size than the network was built for.
        """
        check_video(video, multiple=self.patch_size)
        grid = Grid(*(n // p for n, p in zip((video.shape[1], *video.shape[3:]), self.patch_size)))
        lasts = any_length or grid.t == self.grid.t or (shorter and grid.t < self.grid.t)
        if grid[1:] != self.grid[1:] or not lasts:
            raise ValueError(
                f"this network was built for a grid of {tuple(self.grid)} tubelets of {self.patch_size} pixels, "
                f"got {tuple(grid)}: cut clips of the size that it was built for"
            )
        return self.embed(video, visible), grid

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for embedding and positions, ``i + 1`` for block ``i``."""
        return layer_of(name, self.depth + 1)


class FrameTransformer(_Patches):
    """An image transformer that sees each time step alone (Dosovitskiy et al. 2021), with a class token for each.

    Clips may have any length. As an :class:`~filmstrip.protocols.Encoder` its class token is the mean over time.
    """

    frames_apart = True
    """Whether each time step's tokens are of that alone."""

    def __init__(self, config: TransformerArchitecture) -> None:
        super().__init__(config)
        self.cls_token = nn.Parameter(torch.zeros(config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1 + self.grid.h * self.grid.w, config.width))
        self.blocks = blocks_of(Block, config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        start(self, config.linear_init)

    def steps(self, video: Tensor, layers: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The tokens of each time step before the last norm, ``B t 1+p D``, its class token first.

        With ``layers`` also every block's output, ``(B t) 1+p D``.
        """
        tokens, grid = self._tokens(video, any_length=True)
        frames = rearrange(tokens, "b (t p) d -> (b t) p d", t=grid.t)
        x = torch.cat([self.cls_token.expand(frames.shape[0], 1, -1), frames], dim=1) + self.pos_embed
        x, seen = run_blocks(self.blocks, x, layers)
        return rearrange(x, "(b t) n d -> b t n d", t=grid.t), seen

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; class tokens are averaged over time, then normalised."""
        x, seen = self.steps(video, layers)
        t = x.shape[1]
        tokens = self.norm(rearrange(x[:, :, 1:], "b t p d -> b (t p) d"))
        classes = tuple(rearrange(s[:, 0], "(b t) d -> b t d", t=t) for s in seen)
        seen = tuple(rearrange(s[:, 1:], "(b t) p d -> b (t p) d", t=t) for s in seen)
        summary = self.norm(x[:, :, 0].mean(dim=1, keepdim=True))
        return Features(tokens, self.grid._replace(t=t), seen, summary, classes)

    def load_image(self, image: Mapping[str, Tensor]) -> None:
        """Take over an image transformer's weights, in place."""
        start_from_image(self, image)


class BlockKind(NamedTuple):
    """The kind of block in a :class:`SpaceTimeTransformer`."""

    make: Callable[..., nn.Module]
    """Constructor with the arguments of :class:`~filmstrip.nn.block.Block`."""
    on_grid: bool = False
    """Whether a block takes the grid of its tokens as its second argument."""
    class_token: bool = True
    """Whether a class token precedes the others."""


JOINT = BlockKind(Block)
"""Attention from every token to every other."""
DIVIDED = BlockKind(DividedBlock, on_grid=True)
"""TimeSformer's attention over time, then within frames."""
SPACE_RESIDUAL = BlockKind(SpaceResidualBlock, on_grid=True)
"""Frozen in Time's attention over time, on which that within frames looks."""


class SpaceTimeTransformer(_Patches):
    """One transformer over all tokens of a clip.

    ``time_positions``: learned positions of frames beside those within a frame; otherwise one for each position of
    the grid. With ``grows`` as well, clips may be shorter than the network was built for, and it may start from one
    that was built for clips of another length: positions of frames that that one lacks begin at zero.
    ``norm_before``: tokens are normalised before the first block, as CLIP's, whose projection of patches has no
    ``patch_bias`` either. ``images``: a clip whose frames are all equal is an image, which has neither positions of
    frames nor attention over time; one frame is enough of it.
    """

    def __init__(
        self,
        kind: BlockKind,
        config: TransformerArchitecture,
        *,
        time_positions: bool = False,
        grows: bool = False,
        norm_before: bool = False,
        patch_bias: bool = True,
        images: bool = False,
    ) -> None:
        super().__init__(config, patch_bias=patch_bias)
        self.kind, self.grows, self.images = kind, grows, images
        width = config.width
        t, h, w = self.grid
        self.cls_token = nn.Parameter(torch.zeros(width)) if kind.class_token else None
        count = (1 if time_positions else t) * h * w + (self.cls_token is not None)
        self.pos_embed = nn.Parameter(torch.zeros(count, width))
        self.time_pos_embed = nn.Parameter(torch.zeros(t, width)) if time_positions else None
        # CLIP's adds another constant than the blocks' norms.
        self.norm_before = nn.LayerNorm(width, eps=1e-5) if norm_before else nn.Identity()
        self.blocks = blocks_of(kind.make, config)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        start(self, config.linear_init)
        if kind == DIVIDED:
            # The temporal branch starts at zero; TimeSformer's first block is published with a random start.
            for block in self.blocks[1:]:
                nn.init.zeros_(block.time_fc.weight)
                nn.init.zeros_(block.time_fc.bias)
        if kind == SPACE_RESIDUAL:
            for block in self.blocks:
                nn.init.zeros_(block.time_attention.out.weight)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        ``visible`` (``B K``, indices into the grid) encodes those tubelets alone: ``B K D``.

        Raises:
            ValueError: the video has another size than the network was built for, or blocks need the whole grid.
        """
        if visible is not None and self.kind.on_grid:
            raise ValueError("attention that is divided over space and time needs all tubelets of a clip")
        if self.images and video.shape[1] == 1:
            video = video.expand(-1, self.patch_size[0], -1, -1, -1)
        moving = (video != video[:, :1]).flatten(1).any(dim=1) if self.images else None
        tokens, grid = self._tokens(video, visible=visible, shorter=self.grows)
        first = 0 if self.cls_token is None else 1
        positions = self.pos_embed[first:]
        if self.time_pos_embed is not None:
            along = self.time_pos_embed[: grid.t, None]
            if moving is not None:
                along = along.where(moving[:, None, None, None], 0.0)
            positions = rearrange(positions + along, "... t p d -> ... (t p) d")
        if visible is not None:
            positions = F.embedding(visible, positions)
        x = tokens + positions
        if first:
            cls = (self.cls_token + self.pos_embed[0]).expand(x.shape[0], 1, -1)
            x = torch.cat([cls.to(x.dtype), x], dim=1)
        x = self.norm_before(x)
        told = ([grid] if self.kind.on_grid else []) + ([moving] if moving is not None else [])
        x, seen = run_blocks(self.blocks, x, layers, *told)
        x, seen = self.norm(x), tuple(s[:, first:] for s in seen)
        return Features(x[:, first:], grid, seen, x[:, :1] if first else None)

    def load_image(self, image: Mapping[str, Tensor]) -> None:
        """Take over an image transformer's weights, in place; TimeSformer's attention over time starts as that over
        space, and Frozen in Time's stays as it is."""
        given = dict(image)
        if self.kind == DIVIDED:
            for name, value in image.items():
                if re.match(r"blocks\.\d+\.(attention|norm1)\.", name):
                    given[name.replace(".attention.", ".time_attention.").replace(".norm1.", ".time_norm.")] = value
        start_from_image(self, given)

    def at_own_length(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`~filmstrip.protocols.Grows`."""
        return with_frames(state, self.grid.t) if self.grows else dict(state)


class FactorisedEncoder(nn.Module):
    """Frames apart, then their class tokens over time: late fusion (ViViT's model 2; VTN with another ``temporal``).

    Features are one token for each time step, and the class token. With ``frozen`` the frames' network does not
    learn, and nothing is kept of it for a backward pass; an ``adapter`` (``B 1+p D -> B D``) then lets class tokens
    read from their frames anew.
    """

    def __init__(
        self,
        frames: FrameTransformer,
        temporal: nn.Module,
        *,
        frozen: bool = False,
        adapter: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.width, self.depth = frames.width, frames.depth + temporal.depth
        self.grid = Grid(frames.grid.t, 1, 1)
        self.patch_size = frames.patch_size
        self.frames = frames
        self.adapter = adapter
        self.temporal = temporal
        self.frozen = frozen
        if frozen:
            frames.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module, but frozen frames stay in evaluation."""
        super().train(mode)
        if self.frozen:
            self.frames.eval()
        return self

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        """Encode ``B T C H W`` video into one token for each time step, ``B t D``, and the class token."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not (self.frozen and self.training)):
            steps, _ = self.frames.steps(video)
            b, t = steps.shape[:2]
            steps = self.frames.norm(steps if self.adapter is not None else steps[:, :, 0])
        if self.adapter is not None:
            steps = rearrange(self.adapter(rearrange(steps, "b t n d -> (b t) n d")), "(b t) d -> b t d", b=b)
        x, seen = self.temporal(steps, layers)
        return Features(x[:, 1:], Grid(t, 1, 1), tuple(s[:, 1:] for s in seen), x[:, :1])

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the frames' come first, then the adapter, then those over time."""
        part, _, rest = name.partition(".")
        if part == "frames":
            return self.frames.depth_of(rest)
        return self.frames.depth + (self.temporal.depth_of(rest) if part == "temporal" else 0)

    def load_image(self, image: Mapping[str, Tensor]) -> None:
        """Take over an image transformer's weights, in place; with frozen frames, time starts as its last layers."""
        self.frames.load_image(image)
        if self.frozen:
            self.temporal.load_image(image, self.frames.depth)


def with_frames(state: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Weights of which the positions of frames (``time_pos_embed``) are those of so many."""
    name = "time_pos_embed"
    return {**state, name: as_many_frames(state[name], count)} if name in state else dict(state)


def as_many_frames(positions: Tensor, count: int) -> Tensor:
    """The first ``count`` positions of frames, of ``t D``; those that are missing are zero."""
    return F.pad(positions[:count], (0, 0, 0, max(0, count - len(positions))))


def layer_of(name: str, norm: int) -> int:
    """The layer of a parameter: ``i + 1`` in ``blocks.i``, ``norm`` in the norm, 0 in the embedding and positions."""
    block = re.match(r"blocks\.(\d+)\.", name)
    if block:
        return int(block[1]) + 1
    return norm if name.startswith("norm.") else 0


def drop_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth's rates: zero at the first block, rising evenly to ``last``."""
    return [last * i / max(1, depth - 1) for i in range(depth)]


def blocks_of(
    make: Callable[..., nn.Module], config: TransformerArchitecture, depth: int | None = None
) -> nn.ModuleList:
    """``depth`` blocks (by default the configuration's), with stochastic depth rising evenly to its rate."""
    options = {"mlp_ratio": config.mlp_ratio, "norm_eps": config.norm_eps, "gelu": config.gelu}
    return nn.ModuleList(
        make(config.width, config.num_heads, drop_path=rate, **options)
        for rate in drop_rates(config.drop_path, depth or config.depth)
    )


def start(network: nn.Module, linear: LinearInit) -> None:
    """Initial weights of a transformer: linear layers, class token (``cls_token``) and positions (``pos_embed``)."""
    init_linear(network, linear)
    for positions in (network.cls_token, network.pos_embed):
        if positions is not None:
            nn.init.trunc_normal_(positions, std=STD)


def start_from_image(network: FrameTransformer | SpaceTimeTransformer, image: Mapping[str, Tensor]) -> None:
    """Copy an image transformer's weights (by :class:`FrameTransformer`'s names) into a video's, in place.

    Its patch filter becomes a tubelet's as :func:`image_filter` says; positions within a frame are resized to the
    grid, and repeated along time where the network has one for each of its positions. All other weights stay.
    """
    state = network.state_dict()
    given = {name: value for name, value in image.items() if name in state and not name.startswith("embed.normalise")}
    given["embed.proj.weight"] = image_filter(image["embed.proj.weight"], network.patch_size[0], network.tubelet_init)
    positions = _resized(image["pos_embed"], network.grid)
    rest = len(state["pos_embed"]) - (state.get("cls_token") is not None)
    repeated = repeat(positions[1:], "p d -> (t p) d", t=rest // (network.grid.h * network.grid.w))
    given["pos_embed"] = torch.cat([positions[:1], repeated]) if len(state["pos_embed"]) > rest else repeated
    network.load_state_dict(state | given)


def image_filter(weight: Tensor, frames: int, how: TubeletInit) -> Tensor:
    """An image's patch filter ``D (q r C)`` for tubelets of ``frames`` frames, ``D (frames q r C)``.

    ``central_frame`` sees the middle frame alone; ``inflate`` the mean of all (Arnab et al. 2021, section 3.4).
    """
    if how == "inflate":
        return weight.repeat(1, frames) / frames
    tubelet = weight.new_zeros(len(weight), frames, weight.shape[1])
    tubelet[:, frames // 2] = weight
    return tubelet.flatten(1)


def _resized(positions: Tensor, grid: Grid) -> Tensor:
    """The embeddings of a square grid's positions, the class token's first, for another grid."""
    side = round((len(positions) - 1) ** 0.5)
    if (side, side) == (grid.h, grid.w):
        return positions
    square = rearrange(positions[1:], "(h w) d -> 1 d h w", h=side)
    square = F.interpolate(square, size=(grid.h, grid.w), mode="bicubic", align_corners=False)
    return torch.cat([positions[:1], rearrange(square, "1 d h w -> (h w) d")])
