"""V-JEPA's networks and its loss."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Ascending, Count, NotEmpty, PositiveShare, Rate, Share
from filmstrip.errors import UserError
from filmstrip.models.vit import grid_of_tiles
from filmstrip.nn.attention import Attention
from filmstrip.nn.block import Block, run_blocks
from filmstrip.nn.initialisation import LinearInit, init_linear
from filmstrip.nn.patches import PatchEmbed, take
from filmstrip.nn.rotary import grid_positions
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Features, Grid, Layout, Loss, Objective, check_video
from filmstrip.systems.pretraining.vjepa.masks import Blocks
from filmstrip.systems.pretraining.vjepa.weights import layouts

PositionKind = Literal["sincos", "rotary"]


@dataclass(frozen=True, kw_only=True)
class VJEPAConfig(ObjectiveConfig):
    """An encoder, its momentum teacher, a narrower predictor, and how positions are masked."""

    width: Count = 1024
    depth: Count = 24
    num_heads: Count = 16
    mlp_ratio: Rate = 4.0
    num_frames: Count = 16
    size: Count = 256
    patch_size: tuple[Count, Count, Count] = (2, 16, 16)
    positions: PositionKind = "rotary"
    """Positions of tokens in encoder and predictor: ``sincos`` vectors that are added (V-JEPA), or ``rotary``
    embeddings of queries and keys (V-JEPA 2)."""
    linear_init: LinearInit = "normal"
    """Initialisation of linear layers; ``glorot`` suits a narrow network that is trained from scratch."""
    predictor_width: Count = 384
    predictor_depth: Count = 12
    predictor_num_heads: Count = 12
    num_blocks: Annotated[tuple[Count, ...], NotEmpty] = (8, 2)
    """Number of blocks of each type of mask; every clip is masked in all of these ways."""
    block_scales: Annotated[tuple[PositiveShare, ...], NotEmpty] = (0.15, 0.7)
    """Share of a frame that one block covers, of each type of mask."""
    block_aspect: Annotated[tuple[Rate, Rate], Ascending] = (0.75, 1.5)
    """Range of a block's height over its width."""
    num_mask_tokens: Count = 2
    """Number of learnt mask tokens in the predictor; those that no mask uses are never trained."""
    shared_mask_token: bool = False
    """Whether all types of masks use the first mask token; otherwise each has its own."""
    momentum: Share = 0.998
    """Initial momentum of the teacher."""
    momentum_end: Share = 1.0
    """Final momentum, approached linearly."""
    momentum_steps: Count = 100_000
    """Number of steps until the final momentum."""

    def build(self) -> VJEPA:
        """Build the networks with fresh weights.

        Raises:
            UserError: types of masks, their blocks and their tokens do not go together.
        """
        types = len(self.num_blocks)
        if types != len(self.block_scales):
            scales = len(self.block_scales)
            raise UserError(f"num_blocks has {types} entries and block_scales {scales}: give one of each a mask")
        if not self.shared_mask_token and self.num_mask_tokens < types:
            raise UserError(
                f"{types} types of masks need as many mask tokens, got {self.num_mask_tokens}: raise num_mask_tokens "
                "or set shared_mask_token"
            )
        return VJEPA(self)


class Positions(nn.Module):
    """The positions of tokens: vectors to add to them, or rotary angles of each channel of a head."""

    def __init__(self, kind: PositionKind, grid: Grid, width: int, num_heads: int) -> None:
        super().__init__()
        self.kind = kind
        self.grid = grid
        if kind == "sincos":
            self.register_buffer("table", sincos_of_grid(grid, width), persistent=False)
            return
        head_dim = width // num_heads
        share = head_dim // 3 // 2 * 2  # channels of an axis; the last ones of a head may be left over
        if not share:
            raise ValueError(f"rotary positions need heads of 6 channels or more, got {head_dim}")
        ladder = 10_000.0 ** (-torch.arange(share // 2, dtype=torch.float32) / (share // 2))
        rest = head_dim - 3 * share
        self.register_buffer("frequencies", F.pad(ladder.repeat(6), (0, rest)), persistent=False)
        axis = torch.arange(3).repeat_interleave(share, output_size=3 * share)
        self.register_buffer("axis", F.pad(axis, (0, rest)), persistent=False)

    def forward(self, tokens: Tensor, grid: Grid, index: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens ``B N D`` at all positions of a grid, or at ``index`` (``B N``), as blocks take them; and the
        further arguments of blocks.

        Raises:
            ValueError: sine-cosine vectors are those of another grid.
        """
        if self.kind == "sincos":
            if grid != self.grid:
                raise ValueError(
                    f"this network was built for a grid of {tuple(self.grid)} tubelets, got {tuple(grid)}: cut clips "
                    "of the size that it was built for"
                )
            table = self.table if index is None else self.table[index]
            return tokens + table.to(tokens.dtype), ()
        places = grid_positions(grid, tokens.device).to(torch.float32)
        if index is not None:
            places = places[index]
        return tokens, (places[..., self.axis] * self.frequencies,)


def sincos_of_grid(grid: Grid, width: int) -> Tensor:
    """Sines and cosines of time, height and width side by side, ``N width``, float32.

    Each axis has a third of the channels, rounded up to an even number (the last ones are cut off): first all of its
    sines, then its cosines.
    """
    share = -(-width // 6) * 2
    ladder = 10_000.0 ** (-torch.arange(share // 2, dtype=torch.float64) / (share // 2))
    angles = grid_positions(grid).to(torch.float64)[:, :, None] * ladder
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return table[:, :width].to(torch.float32)


class RotaryAttention(Attention):
    """Self-attention whose queries and keys are turned as in the published code.

    Neighbouring channels make a pair, yet channels ``i`` and ``i + share / 2`` of an axis share a frequency, so that
    the two of a pair differ in it. The released weights were trained so.
    """

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """``B N D -> B N D``, with an angle for each channel of a head: ``N head_dim`` or ``B N head_dim``."""
        q, k, v = self._project(x, None)
        if angles.ndim == 3:
            angles = rearrange(angles, "b n d -> b 1 n d")
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        q, k = (y * cos + _quarter_turn(y) * sin for y in (q, k))
        return self.out(rearrange(self.attend(q, k, v), "b h n d -> b n (h d)"))


def _quarter_turn(x: Tensor) -> Tensor:
    """Pairs of neighbouring channels ``(a, b)`` as ``(-b, a)``."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    return torch.stack([-second, first], dim=-1).flatten(-2)


class RotaryBlock(Block):
    """A pre-norm block with :class:`RotaryAttention`: ``B N D -> B N D``."""

    def __init__(self, width: int, num_heads: int, *, mlp_ratio: float = 4.0) -> None:
        super().__init__(width, num_heads, mlp_ratio=mlp_ratio)
        self.attention = RotaryAttention(width, num_heads)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Apply the block."""
        x = x + self.attention(self.norm1(x), angles)
        return x + self.mlp(self.norm2(x))


def _blocks(kind: PositionKind, depth: int, width: int, num_heads: int, mlp_ratio: float) -> nn.ModuleList:
    block = RotaryBlock if kind == "rotary" else Block
    return nn.ModuleList(block(width, num_heads, mlp_ratio=mlp_ratio) for _ in range(depth))


@torch.no_grad()
def _initialise(network: nn.Module, start: LinearInit) -> None:
    """Random weights; those of a block's last layers, whose outputs join the tokens, are smaller the deeper it is."""
    init_linear(network, start)
    for i, block in enumerate(network.blocks, 1):
        for layer in (block.attention.out, block.mlp.fc2):
            layer.weight /= (2 * i) ** 0.5


class VJEPAEncoder(nn.Module):
    """An :class:`~filmstrip.protocols.Encoder`: tubelets to tokens, pre-norm blocks with biases, a last norm."""

    def __init__(self, config: VJEPAConfig) -> None:
        super().__init__()
        self.width = config.width
        self.depth = config.depth
        self.patch_size = tuple(config.patch_size)
        self.grid = grid_of_tiles(config.num_frames, config.size, self.patch_size)
        self.embed = PatchEmbed(config.width, self.patch_size)
        self.positions = Positions(config.positions, self.grid, config.width, config.num_heads)
        self.blocks = _blocks(config.positions, config.depth, config.width, config.num_heads, config.mlp_ratio)
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        _initialise(self, config.linear_init)

    def forward(self, video: Tensor, layers: bool = False, visible: Tensor | None = None) -> Features:
        """Encode ``B T C H W`` video into tokens ``B N D``; with ``layers`` also return each block's output.

        ``visible`` (``B K``, indices into the grid) encodes those positions alone: the others are dropped before any
        work is done on them, and the tokens are ``B K D``. With rotary positions clips may have any size.
        """
        check_video(video, multiple=self.patch_size)
        grid = Grid(*(size // p for size, p in zip((video.shape[1], *video.shape[3:]), self.patch_size)))
        tokens, where = self.positions(self.embed(video, visible), grid, visible)
        tokens, seen = run_blocks(self.blocks, tokens, layers, *where)
        return Features(self.norm(tokens), grid, tuple(seen))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 for the embedding, ``i + 1`` for block ``i``."""
        block = re.match(r"blocks\.(\d+)\.", name)
        if block:
            return int(block[1]) + 1
        return 0 if name.startswith("embed.") else self.depth + 1

    def layouts(self) -> tuple[Layout, ...]:
        """Those of the authors' training and of the Hub, each with predictor and teacher."""
        return layouts(self.patch_size)


class Predictor(nn.Module):
    """Predicts the features of masked positions from those of visible ones, by a narrow transformer."""

    def __init__(self, config: VJEPAConfig, grid: Grid) -> None:
        super().__init__()
        width, num_heads = config.predictor_width, config.predictor_num_heads
        self.project = nn.Linear(config.width, width)
        tokens = (nn.Parameter(torch.zeros(1, 1, width)) for _ in range(config.num_mask_tokens))
        self.mask_tokens = nn.ParameterList(tokens)
        for token in self.mask_tokens[1 if config.shared_mask_token else len(config.num_blocks) :]:
            token.requires_grad_(False)
        self.positions = Positions(config.positions, grid, width, num_heads)
        self.blocks = _blocks(config.positions, config.predictor_depth, width, num_heads, 4.0)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, config.width)
        _initialise(self, config.linear_init)

    def forward(self, context: Tensor, grid: Grid, visible: Tensor, masked: Tensor, token: int) -> Tensor:
        """Features ``B M D`` at ``masked`` from features ``B V D`` at ``visible``, with a mask token by its index."""
        seen = self.project(context)
        wanted = self.mask_tokens[token].to(seen.dtype).expand(*masked.shape, -1)
        tokens, where = self.positions(torch.cat([seen, wanted], dim=1), grid, torch.cat([visible, masked], dim=1))
        tokens, _ = run_blocks(self.blocks, tokens, False, *where)
        return self.head(self.norm(tokens[:, visible.shape[1] :]))


class VJEPA(Objective):
    """A student sees the visible positions of a clip; a predictor makes of them the teacher's features elsewhere."""

    requires = ("video", "seed")
    starts_whole = True

    def __init__(self, config: VJEPAConfig) -> None:
        super().__init__()
        self.student = VJEPAEncoder(config)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.predictor = Predictor(config, self.student.grid)
        self.shared_mask_token = config.shared_mask_token
        self.momentum = config.momentum, config.momentum_end, config.momentum_steps
        types = zip(config.num_blocks, config.block_scales)
        self.mask_types = [
            Blocks(
                grid=self.student.grid,
                number=number,
                scale=scale,
                aspect=config.block_aspect,
                index=index,
            )
            for index, (number, scale) in enumerate(types)
        ]
        self.counts = [blocks.counts() for blocks in self.mask_types]

    @property
    def encoder(self) -> VJEPAEncoder:
        """The network whose features count: the teacher, as published."""
        return self.teacher

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Mean absolute error of the predicted features, the mean over the types of masks.

        The standard deviations over clips and positions of targets and predictions, means over channels, show a
        collapse: they go to zero when all positions of all clips have the same features.
        """
        video, metrics = batch["video"], {}
        targets, total, deviation = self.targets(video), 0.0, 0.0
        for index, (visible, masked) in enumerate(self.draw_masks(batch["seed"])):
            predicted = self.predict(video, visible, masked, index).float()
            loss = F.l1_loss(predicted, take(targets, masked))
            total = total + loss / len(self.mask_types)
            deviation = deviation + spread(predicted.detach()) / len(self.mask_types)
            metrics[f"loss_mask_{index}"] = loss.detach()
        return Loss(total, {**metrics, "target_std": spread(targets), "prediction_std": deviation})

    def draw_masks(self, seeds: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Visible and masked positions, ``B V`` and ``B M``, of each type of mask, from each clip's seed (``B``)."""
        return [blocks.choose(seeds, counts) for blocks, counts in zip(self.mask_types, self.counts)]

    @torch.no_grad()
    def targets(self, video: Tensor) -> Tensor:
        """The teacher's features of whole clips, normalised token by token: ``B N D``, float32."""
        features = self.teacher(video).tokens.float()
        return F.layer_norm(features, features.shape[-1:])

    def predict(self, video: Tensor, visible: Tensor, masked: Tensor, mask_type: int = 0) -> Tensor:
        """Features ``B M D`` at ``masked`` positions of clips of which only those at ``visible`` are seen."""
        seen = self.student(video, visible=visible)
        token = 0 if self.shared_mask_token else mask_type
        return self.predictor(seen.tokens, seen.grid, visible, masked, token)

    def momentum_at(self, step: int) -> float:
        """The momentum of the update after a step, counted from 1."""
        start, end, steps = self.momentum
        return start + (end - start) * min((step - 1) / steps, 1.0)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher: ``teacher <- momentum * teacher + (1 - momentum) * student``."""
        teacher, student = list(self.teacher.parameters()), list(self.student.parameters())
        torch._foreach_lerp_(teacher, student, 1 - self.momentum_at(step))

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the student's, then the predictor."""
        part, _, rest = name.partition(".")
        return self.student.depth + 2 if part == "predictor" else self.student.depth_of(rest)


def spread(features: Tensor) -> Tensor:
    """The standard deviation of features ``B N D`` over clips and positions, mean over channels."""
    return features.flatten(0, 1).std(dim=0, correction=0).mean()
