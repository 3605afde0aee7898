"""A transformer block with separate attention over space and over time."""

from __future__ import annotations

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
