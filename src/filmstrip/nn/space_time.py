"""Transformer blocks with separate attention over space and over time."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from filmstrip.nn.attention import Attention
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.mlp import GELU, MLP
from filmstrip.protocols import Grid


class DividedBlock(nn.Module):
    """Attention over time at each position, then over space within each frame, then the feed-forward network.

    Bertasius et al. 2021 (TimeSformer). The first token is the class token: it takes part in every frame's spatial
    attention and receives the mean of the outputs; it takes no part in temporal attention, whose output passes one
    more linear layer, ``time_fc``.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        gelu: GELU = "exact",
    ) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(width, eps=norm_eps)
        self.time_attention = Attention(width, num_heads)
        self.time_fc = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, round(width * mlp_ratio), gelu=gelu)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid, moving: Tensor | None = None) -> Tensor:
        """``B 1+N D -> B 1+N D``, with ``N = t * h * w`` tokens after the class token.

        Clips that are not ``moving`` (``B`` bool, by default all are) attend within frames alone.
        """
        t, cls, tokens = grid.t, x[:, :1], x[:, 1:]
        if moving is None or t > 1:
            along = rearrange(tokens, "b (t p) d -> (b p) t d", t=t)
            along = self.time_fc(self.drop_path(self.time_attention(self.time_norm(along))))
            along = rearrange(along, "(b p) t d -> b (t p) d", b=x.shape[0])
            tokens = tokens + (along if moving is None else along.where(moving[:, None, None], 0.0))
        frames = torch.cat(
            [repeat(cls, "b 1 d -> (b t) 1 d", t=t), rearrange(tokens, "b (t p) d -> (b t) p d", t=t)], 1
        )
        read = self.drop_path(self.attention(self.norm1(frames)))
        read_cls = reduce(read[:, :1], "(b t) 1 d -> b 1 d", "mean", t=t)
        read = rearrange(read[:, 1:], "(b t) p d -> b (t p) d", t=t)
        x = torch.cat([cls + read_cls, tokens + read], dim=1)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DividedAttention(Attention):
    """Self-attention of patches along one axis, and of a class token to everything: ``B 1+N D -> B 1+N D``.

    A patch attends to those of its frame (``space``), or to those at its place in all frames (``time``), and in both
    to the class token, which comes first.
    """

    def forward(self, x: Tensor, grid: Grid, *, along: Literal["space", "time"]) -> Tensor:
        """Attend; there are ``N = t * h * w`` tokens after the class token."""
        q, k, v = self._project(x, None)
        groups = "(b t) h p d" if along == "space" else "(b p) h t d"

        def grouped(part: Tensor) -> Tensor:
            return rearrange(part[:, :, 1:], f"b h (t p) d -> {groups}", t=grid.t)

        def with_class(part: Tensor) -> Tensor:
            patches = grouped(part)
            return torch.cat([part[:, :, :1].repeat_interleave(len(patches) // len(part), dim=0), patches], dim=2)

        read = self.attend(grouped(q), with_class(k), with_class(v))
        patches = rearrange(read, f"{groups} -> b h (t p) d", b=x.shape[0], t=grid.t)
        read = torch.cat([self.attend(q[:, :, :1], k, v), patches], dim=2)
        return self.out(rearrange(read, "b h n d -> b n (h d)"))


class SpaceResidualBlock(nn.Module):
    """Attention over time feeds attention over space, which is added to what came before both; then the network.

    Bain et al. 2021 (Frozen in Time): ``y = x + time(x)``, ``z = x + space(y)``. The class token takes part in both
    (:class:`DividedAttention`). What time adds is zero at first.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        gelu: GELU = "exact",
    ) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(width, eps=norm_eps)
        self.time_attention = DividedAttention(width, num_heads)
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = DividedAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, round(width * mlp_ratio), gelu=gelu)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``B 1+N D -> B 1+N D``, with ``N = t * h * w`` tokens after the class token."""
        timed = x + self.time_attention(self.time_norm(x), grid, along="time")
        x = x + self.drop_path(self.attention(self.norm1(timed), grid, along="space"))
        return x + self.drop_path(self.mlp(self.norm2(x)))
