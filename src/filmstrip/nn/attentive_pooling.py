"""Pooling by attention: a learned query attends to a set of tokens, and a linear layer classifies the result."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn

from filmstrip.nn.attention import Attention, attend
from filmstrip.nn.block import Block
from filmstrip.nn.mlp import MLP


class AttentivePooling(nn.Module):
    """Class logits ``B K`` of ``B T D`` tokens: a learned query, cross-attention, a feed-forward, a linear layer.

    V-JEPA's probe (Bardes et al. 2024); ``depth`` blocks of self-attention come before it. By default heads have 64
    channels. Released ones (V-JEPA 2) have no output projection of the cross-attention (``projects``), and their
    norms have an ``norm_eps`` of 1e-6.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        depth: int = 0,
        num_heads: int | None = None,
        projects: bool = True,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        num_heads = num_heads or max(1, width // 64)
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(depth)))
        self.query = nn.Parameter(torch.empty(1, width).normal_(std=0.02))
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, num_heads, head_dim=width // num_heads, context_width=width)
        if not projects:
            self.attention.out = nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, 4 * width)
        self.head = nn.Linear(width, num_classes)

    def pool(self, tokens: Tensor) -> Tensor:
        """One vector ``B D`` for each set of tokens."""
        query = repeat(self.query, "one d -> b one d", b=tokens.shape[0])
        pooled = query + self.attention(query, context=self.norm1(self.blocks(tokens)))
        return (pooled + self.mlp(self.norm2(pooled)))[:, 0]

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens and classify."""
        return self.head(self.pool(tokens))


class PlainAttentivePooling(nn.Module):
    """Class logits ``B K`` of ``B T D`` tokens: one attention of one head from a learned query, and a linear layer.

    Toto's probe (Rajasegaran et al. 2025), which has no feed-forward network and no residual connection. Tokens are
    normalised first: layers differ in scale, which the paper does not mention.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens and classify."""
        tokens = self.norm(tokens)
        query = repeat(self.query, "d -> b 1 1 d", b=tokens.shape[0])
        keys, values = (layer(tokens)[:, None] for layer in (self.key, self.value))
        return self.head(attend(query, keys, values)[:, 0, 0])
