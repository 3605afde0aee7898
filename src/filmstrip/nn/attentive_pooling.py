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

    V-JEPA's probe (Bardes et al. 2024); ``depth`` blocks of self-attention come before it.
    """

    def __init__(self, width: int, num_classes: int, *, depth: int = 0) -> None:
        super().__init__()
        num_heads = max(1, width // 64)
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(depth)))
        self.query = nn.Parameter(torch.empty(1, width).normal_(std=0.02))
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, head_dim=width // num_heads, context_width=width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens and classify."""
        query = repeat(self.query, "one d -> b one d", b=tokens.shape[0])
        pooled = query + self.attention(query, context=self.norm1(self.blocks(tokens)))
        pooled = pooled + self.mlp(self.norm2(pooled))
        return self.head(pooled[:, 0])


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
