"""Attentive pooling: a learned query attends to a set of tokens, and a linear layer classifies the result."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn

from filmstrip.nn.attention import Attention
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
