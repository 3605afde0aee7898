"""InternVideo2's encoder: a video transformer with a class token, RMS normalisation and attention pooling.

Its first stage is ``pretraining.internvideo2``, its second ``language.internvideo2`` (Wang et al. 2024); as an image
teacher, frame by frame, it is InternVL's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, Rate, ShareBelowOne
from filmstrip.models.video_transformer import layer_of
from filmstrip.models.vit import grid_of_tiles
from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.initialisation import STD, LinearInit, init_linear
from filmstrip.nn.mlp import MLP
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.nn.patches import PatchEmbed, conv_to_linear, linear_to_conv
from filmstrip.nn.positions import sincos_axes
from filmstrip.protocols import Features, Grid, Layout, check_video


@dataclass(frozen=True, kw_only=True)
class AlignedArchitecture:
    """The configuration of an :class:`AlignedEncoder`."""

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
    patch_size: tuple[Count, Count, Count]
    """Frames for each token, of which the first one is seen, and height and width of a patch."""
    mlp_ratio: Rate = 4.0
    """Width of a feed-forward network, relative to that of its tokens."""
    drop_path: ShareBelowOne = 0.0
    """Stochastic depth's rate at the last block."""
    layer_scale: Rate = 1e-5
    """Initial factors of what attention and feed-forward networks add."""
    pool_width: Count = 768
    """Channels of the pooled output."""
    pool_num_heads: Count = 16
    """Attention heads that pool."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""
    mean: tuple[AnyNumber, AnyNumber, AnyNumber] = IMAGENET_MEAN
    """Mean RGB, subtracted from pixels in 0..1."""
    std: tuple[Rate, Rate, Rate] = IMAGENET_STD
    """Standard deviation of RGB, by which pixels are divided."""


class WholeNormAttention(Attention):
    """Self-attention without biases, whose queries and keys are normalised over all heads together."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(width, num_heads, qkv_bias="none")
        self.q_norm = nn.RMSNorm(width, eps=1e-6)
        self.k_norm = nn.RMSNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """``B N D -> B N D``."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        parts = (self.q_norm(q), self.k_norm(k), v)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.num_heads) for part in parts)
        return self.out(rearrange(self.attend(q, k, v), "b h n d -> b n (h d)"))


class AlignedBlock(nn.Module):
    """A pre-norm block with RMS normalisation, whose branches begin at a small scale: ``B N D -> B N D``."""

    def __init__(self, config: AlignedArchitecture, drop_path: float) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.RMSNorm(width, eps=1e-6)
        self.attention = WholeNormAttention(width, config.num_heads)
        self.scale1 = nn.Parameter(torch.full((width,), config.layer_scale))
        self.norm2 = nn.RMSNorm(width, eps=1e-6)
        self.mlp = MLP(width, int(width * config.mlp_ratio))
        self.scale2 = nn.Parameter(torch.full((width,), config.layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        x = x + self.drop_path(self.scale1 * self.attention(self.norm1(x)))
        return x + self.drop_path(self.scale2 * self.mlp(self.norm2(x)))


class AttentionPool(nn.Module):
    """One vector for a set of tokens, whose mean attends to them: ``B N D -> B F``."""

    def __init__(self, width: int, output_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_q, self.norm_k, self.norm_v = (nn.LayerNorm(width) for _ in range(3))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, output_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens."""
        q, k = self._queries_and_keys(tokens)
        v = self._heads(self.v(self.norm_v(tokens)))
        return self.out(rearrange(attend(q, k, v), "b h one d -> b (one h d)"))

    def weights(self, tokens: Tensor) -> Tensor:
        """How much each token counts, ``B N``: the mean over heads."""
        q, k = self._queries_and_keys(tokens)
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)[:, 0]

    def _queries_and_keys(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        query = self.norm_q(tokens.mean(dim=1, keepdim=True))
        return self._heads(self.q(query)), self._heads(self.k(self.norm_k(tokens)))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.num_heads)


class AlignedEncoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder` with a class token, learnt positions and a pooled output.

    Of the frames that belong to a token the first one is seen.
    """

    def __init__(self, config: AlignedArchitecture) -> None:
        super().__init__()
        self.width, self.depth = config.width, config.depth
        self.patch_size = tuple(config.patch_size)
        self.grid = grid_of_tiles(config.num_frames, config.size, self.patch_size)
        self.embed = PatchEmbed(config.width, (1, *self.patch_size[1:]), mean=config.mean, std=config.std)
        self.cls_token = nn.Parameter(torch.zeros(config.width))
        self.pos_embed = nn.Parameter(start_positions(self._positions(), config.width))
        rates = (config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth))
        self.blocks = nn.ModuleList(AlignedBlock(config, rate) for rate in rates)
        self.pool = AttentionPool(config.width, config.pool_width, config.pool_num_heads)
        self._start(config.linear_init)

    def _positions(self) -> Grid:
        """The grid that has a position for each of its tokens."""
        return self.grid

    @torch.no_grad()
    def _start(self, how: LinearInit) -> None:
        """Random weights; those of a block's last layers are smaller the deeper it is."""
        init_linear(self, how)
        nn.init.trunc_normal_(self.cls_token, std=STD)
        for i, block in enumerate(self.blocks, 1):
            for layer in (block.attention.out, block.mlp.fc2):
                layer.weight /= (2 * i) ** 0.5

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        ``visible`` (``B K``, indices into the grid) encodes those positions alone: ``B K D``.
        """
        seen = self.layers(video, visible, count=self.depth if layers else 1)
        tokens = tuple(layer[:, 1:] for layer in seen)
        return Features(tokens[-1], self.grid, tokens if layers else ())

    def layers(self, video: Tensor, visible: Tensor | None = None, *, count: int) -> list[Tensor]:
        """The outputs of the last ``count`` blocks, ``B 1+N D`` each, the class token first.

        Raises:
            ValueError: the video has another size than the network was built for.
        """
        check_video(video, multiple=self.patch_size)
        grid = tuple(size // p for size, p in zip((video.shape[1], *video.shape[3:]), self.patch_size))
        if grid != self.grid:
            raise ValueError(
                f"this network was built for a grid of {tuple(self.grid)} tokens of {self.patch_size} pixels, got "
                f"{grid}: cut clips of the size that it was built for"
            )
        return self._run(video[:, :: self.patch_size[0]], visible, count)

    def _run(self, frames: Tensor, visible: Tensor | None, count: int) -> list[Tensor]:
        tokens = self.embed(frames, visible)
        positions = self.pos_embed[1:] if visible is None else F.embedding(visible, self.pos_embed[1:])
        cls = (self.cls_token + self.pos_embed[0]).expand(tokens.shape[0], 1, -1)
        x = torch.cat([cls.to(tokens.dtype), tokens + positions.to(tokens.dtype)], dim=1)
        seen = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i >= self.depth - count:
                seen.append(x)
        return seen

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: 0 for embedding and positions, ``i + 1`` for block ``i``, then what pools."""
        return self.depth + 1 if name.startswith("pool.") else layer_of(name, self.depth + 1)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' first stage: the student and its heads."""
        as_theirs = partial(as_convolution, (1, *self.patch_size[1:]))
        after = (r"(?:clip|mae)_.*", r"final_clip_decoder\..*")
        return (
            Layout(
                name="pretraining",
                rules=(*ENCODER, *_STUDENT),
                after=after,
                absent=(r"(?:image|video)_teacher\..*",),
                to_ours=as_linear,
                to_theirs=as_theirs,
            ),
        )


class FrameEncoder(AlignedEncoder):
    """The same network on each frame alone, as an image teacher. Clips may have any length."""

    def _positions(self) -> Grid:
        return self.grid._replace(t=1)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video, frame by frame; its ``summary`` is the pooled output of each, ``B T F``.

        Raises:
            ValueError: tokens were chosen, which are those of a clip; or frames have another size.
        """
        if visible is not None:
            raise ValueError("an encoder of frames sees them whole")
        check_video(video, multiple=self.patch_size)
        seen = self.steps(video, count=self.depth if layers else 1)
        t = video.shape[1]
        tokens = tuple(rearrange(layer[:, 1:], "(b t) p d -> b (t p) d", t=t) for layer in seen)
        pooled = rearrange(self.pool(seen[-1]), "(b t) f -> b t f", t=t)
        return Features(tokens[-1], self.grid._replace(t=t), tokens if layers else (), pooled)

    def steps(self, video: Tensor, *, count: int) -> list[Tensor]:
        """The outputs of the last ``count`` blocks for each frame, ``(B T) 1+p D``, the class token first."""
        return self._run(rearrange(video, "b t c h w -> (b t) 1 c h w"), None, count)


def start_positions(grid: Grid, width: int) -> Tensor:
    """Initial positions, ``1+N width``: zeros for the class token, sines and cosines of the axes."""
    return torch.cat([torch.zeros(1, width), sincos_axes(grid, width)])


def resized_positions(positions: Tensor, before: Grid, after: Grid) -> Tensor:
    """Positions ``1+N D`` of one grid for another: linear in time, then bicubic in space; the class token's stays."""
    cls, table = positions[:1], rearrange(positions[1:], "(t h w) d -> (h w) d t", t=before.t, h=before.h, w=before.w)
    if before.t != after.t:
        table = F.interpolate(table, size=after.t, mode="linear")
    table = rearrange(table, "(h w) d t -> t d h w", h=before.h)
    if before[1:] != after[1:]:
        table = F.interpolate(table, size=(after.h, after.w), mode="bicubic", align_corners=False)
    return torch.cat([cls, rearrange(table, "t d h w -> (t h w) d")])


ENCODER = (
    (r"^encoder\.embed\.", "encoder.patch_embed."),
    (r"^encoder\.pool\.norm_", "encoder.clip_projector.norm1_"),
    (r"^encoder\.pool\.out\.", "encoder.clip_projector.cross_attn.proj."),
    (r"^encoder\.pool\.(\w)\.bias$", r"encoder.clip_projector.cross_attn.\1_bias"),
    (r"^encoder\.pool\.", "encoder.clip_projector.cross_attn."),
    (r"^(encoder\.blocks\.\d+)\.attention\.out\.", r"\1.attn.proj."),
    (r"^(encoder\.blocks\.\d+)\.attention\.", r"\1.attn."),
    (r"^(encoder\.blocks\.\d+)\.scale(\d)$", r"\1.ls\2.gamma"),
)
"""The authors' names of the encoder's weights, behind ``encoder.``."""
_STUDENT = (
    (r"^encoder\.", ""),
    (r"^image_heads\.", "clip_decoder."),
    (r"^video_heads\.", "mae_decoder."),
    (r"^pooled_head\.", "final_clip_decoder."),
    (r"^image_positions$", "clip_pos_embed"),
    (r"^video_positions$", "mae_pos_embed"),
)


def as_linear(name: str, tensor: Tensor) -> Tensor:
    """Patches are projected by a convolution there."""
    return conv_to_linear(tensor) if name.endswith("embed.proj.weight") else tensor


def as_convolution(patch_size: tuple[int, int, int], name: str, tensor: Tensor) -> Tensor:
    """The inverse of :func:`as_linear`, with their leading axes of one."""
    if name.endswith("embed.proj.weight"):
        return linear_to_conv(tensor, patch_size)
    if name.endswith(("_token", "pos_embed", "_positions")):
        return tensor.view(1, -1, tensor.shape[-1])
    return tensor
