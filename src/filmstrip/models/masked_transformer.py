"""A transformer that predicts masked codes of a grid from visible ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, Rate
from filmstrip.nn.block import Block
from filmstrip.nn.mlp import GELU
from filmstrip.protocols import Grid

Form = Literal["maskgit", "teco"]
Window = tuple[CountOrZero, CountOrZero, CountOrZero]
WHOLE: Window = (0, 0, 0)
"""All positions of the grid together."""


class WindowBlock(nn.Module):
    """A transformer block within windows of the grid, each seeing only itself; zero stands for the whole axis."""

    def __init__(self, width: int, num_heads: int, *, mlp_ratio: float, window: Window, gelu: GELU) -> None:
        super().__init__()
        self.window = window
        self.inner = Block(width, num_heads, mlp_ratio=mlp_ratio, gelu=gelu)

    def forward(self, x: Tensor) -> Tensor:
        """``B t h w D -> B t h w D``."""
        grid = x.shape[1:4]
        p, q, r = (side or size for side, size in zip(self.window, grid))
        n, m = (size // side for size, side in zip(grid[1:], (q, r)))
        x = rearrange(x, "b (s p) (n q) (m r) d -> (b s n m) (p q r) d", p=p, q=q, r=r)
        return rearrange(
            self.inner(x), "(b s n m) (p q r) d -> b (s p) (n q) (m r) d", n=n, m=m, p=p, q=q, s=grid[0] // p
        )


@dataclass(frozen=True, kw_only=True)
class MaskedTransformerArchitecture:
    """The configuration of a :class:`MaskedTransformer`."""

    codebook_size: Count
    """Number of codes."""
    grid: tuple[Count, Count, Count]
    """Positions of the codes (t, h, w)."""
    width: Count
    """Channels of a token."""
    depth: Count
    """Number of blocks."""
    num_heads: Count
    """Attention heads of a block."""
    mlp_ratio: Rate = 4.0
    """Width of a feed-forward network, relative to that of its tokens."""
    code_width: Count
    """Channels of a code's embedding."""
    condition_width: CountOrZero = 0
    """Channels of the condition at each position; zero without one."""
    windows: tuple[Window, ...] = (WHOLE,)
    """Windows of attention, in turn from block to block."""
    form: Form = "maskgit"
    """Form of the embedding and of the activation. MaskGIT normalises the sum of embedding and position; TECO's code
    adds a bias instead, and has the sigmoid's GELU in the blocks and the one by its tanh formula after them."""


class MaskedTransformer(nn.Module):
    """Bidirectional attention over codes of which some are masked (Chang et al. 2022, MaskGIT).

    Windows of attention: ``WHOLE`` is MaskGIT's, a frame alone and then a square through all frames are MaskViT's
    (Gupta et al. 2022), single lines are axial attention. A condition is concatenated to every position's embedding;
    the output layer shares its weights with the codes' embeddings.

    Raises:
        ValueError: a window does not tile the grid.
    """

    def __init__(self, config: MaskedTransformerArchitecture) -> None:
        super().__init__()
        grid, width, code_width, codebook_size = config.grid, config.width, config.code_width, config.codebook_size
        for window in config.windows:
            if any(side and size % side for side, size in zip(window, grid)):
                raise ValueError(f"windows of {tuple(window)} (t, h, w) do not tile a grid of {tuple(grid)}")
        self.codebook_size = codebook_size
        self.mask_id = codebook_size
        """The id of a masked code."""
        self.grid = Grid(*grid)
        self.embed = nn.Embedding(codebook_size + 1, code_width)
        nn.init.normal_(self.embed.weight, std=0.02)
        teco = config.form == "teco"
        self.project = nn.Linear(code_width + config.condition_width, width, bias=teco)
        if teco:  # a bias as large as the embeddings, the same everywhere, would hide what and where a code is
            nn.init.zeros_(self.project.bias)
        self.embed_norm = nn.Identity() if teco else nn.LayerNorm(width, eps=1e-6)
        # an axis of one position needs no position
        self.positions = nn.ParameterList(torch.randn(size, width) * 0.02 for size in grid if size > 1)
        self.blocks = nn.ModuleList(
            WindowBlock(
                width,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                window=window,
                gelu="quick" if teco else "exact",
            )
            for window in islice(cycle(config.windows), config.depth)
        )
        gelu = nn.GELU(approximate="tanh" if teco else "none")
        self.head = nn.Sequential(
            nn.Linear(width, width),
            gelu,
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, code_width),
            gelu,
            nn.LayerNorm(code_width, eps=1e-6),
        )
        self.bias = nn.Parameter(torch.zeros(codebook_size))

    def forward(self, ids: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits ``B N K`` of ids ``B N`` on the whole grid; ``condition`` is ``B N C``.

        Raises:
            ValueError: the ids are not as many as the grid has positions.
        """
        t, h, w = self.grid
        if ids.ndim != 2 or ids.shape[1] != t * h * w:
            raise ValueError(
                f"expected ids of shape (B, {t * h * w}) on a grid of {t} x {h} x {w}, got {tuple(ids.shape)}"
            )
        x = self.embed(ids)
        x = self.project(x if condition is None else torch.cat([x, condition.to(x.dtype)], dim=2))
        x = rearrange(x, "b (t h w) d -> b t h w d", t=t, h=h)
        positions = iter(self.positions)
        for axis, size in enumerate(self.grid):
            if size > 1:
                x = x + next(positions)[(...,) + (None,) * (2 - axis) + (slice(None),)]
        x = self.embed_norm(x)
        for block in self.blocks:
            x = block(x)
        x = self.head(rearrange(x, "b t h w d -> b (t h w) d"))
        return x @ self.embed.weight[: self.codebook_size].T + self.bias
