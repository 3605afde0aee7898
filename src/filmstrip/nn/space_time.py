"""Transformer blocks with separate attention over space and over time."""

from __future__ import annotations

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.block import Block
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.masks import Mask
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

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``B 1+N D -> B 1+N D``, with ``N = t * h * w`` tokens after the class token."""
        t, cls, tokens = grid.t, x[:, :1], x[:, 1:]
        along = rearrange(tokens, "b (t p) d -> (b p) t d", t=t)
        along = self.time_fc(self.drop_path(self.time_attention(self.time_norm(along))))
        tokens = tokens + rearrange(along, "(b p) t d -> b (t p) d", b=x.shape[0])
        frames = torch.cat(
            [repeat(cls, "b 1 d -> (b t) 1 d", t=t), rearrange(tokens, "b (t p) d -> (b t) p d", t=t)], 1
        )
        read = self.drop_path(self.attention(self.norm1(frames)))
        read_cls = reduce(read[:, :1], "(b t) 1 d -> b 1 d", "mean", t=t)
        read = rearrange(read[:, 1:], "(b t) p d -> b (t p) d", t=t)
        x = torch.cat([cls + read_cls, tokens + read], dim=1)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FactorisedBlock(Block):
    """Attention within each frame, then over time at each position, then feed-forward: ``B N D -> B N D``.

    Arnab et al. 2021 (ViViT, model 3). Temporal attention is initialised to zero, so that the block starts as an
    image block.
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
        super().__init__(width, num_heads, mlp_ratio=mlp_ratio, drop_path=drop_path, norm_eps=norm_eps, gelu=gelu)
        self.time_norm = nn.LayerNorm(width, eps=norm_eps)
        self.time_attention = Attention(width, num_heads)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Tokens on a grid of ``N = t * h * w`` positions."""
        frames = rearrange(x, "b (t p) d -> (b t) p d", t=grid.t)
        frames = frames + self.drop_path(self.attention(self.norm1(frames)))
        along = rearrange(frames, "(b t) p d -> (b p) t d", t=grid.t)
        along = along + self.drop_path(self.time_attention(self.time_norm(along)))
        x = rearrange(along, "(b p) t d -> b (t p) d", b=x.shape[0])
        return x + self.drop_path(self.mlp(self.norm2(x)))


class FactorisedHeads(Attention):
    """Attention of which half the heads attend over time at a token's position, and half within its frame.

    Arnab et al. 2021 (ViViT, model 4, factorised dot-product attention): as many parameters as joint attention.

    Raises:
        ValueError: the number of heads is odd.
    """

    def __init__(self, width: int, num_heads: int, *, time: int) -> None:
        super().__init__(width, num_heads)
        if num_heads % 2:
            raise ValueError(f"num_heads {num_heads} is odd: half the heads attend over time, half over space")
        self.time = time
        """Length of the grid's first axis."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None = None, offset: int = 0) -> Tensor:
        """Each head's output, ``B H N D``: the first half over time, the second over space."""
        (b, _, _, _), t = q.shape, self.time
        along, across = zip(*(x.chunk(2, dim=1) for x in (q, k, v)))
        along = attend(*(rearrange(x, "b h (t p) d -> (b p) h t d", t=t) for x in along))
        across = attend(*(rearrange(x, "b h (t p) d -> (b t) h p d", t=t) for x in across))
        along = rearrange(along, "(b p) h t d -> b h (t p) d", b=b)
        return torch.cat([along, rearrange(across, "(b t) h p d -> b h (t p) d", b=b)], dim=1)
