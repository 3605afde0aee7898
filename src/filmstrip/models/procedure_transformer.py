"""A transformer over the clips of a procedure, some of them hidden."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.nn.block import Block
from filmstrip.nn.masks import Mask
from filmstrip.nn.positions import sincos_table


class ProcedureTransformer(nn.Module):
    """Plain blocks over all tokens of all clips: ``B S N D -> B S N width``, with a mask token where none is given.

    Clips are told apart by sines and cosines of their place, tokens of a clip by a learned vector. Every place sees
    every other one but padding.
    """

    def __init__(self, *, feature_width: int, num_tokens: int, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(feature_width, width)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.token_embed = nn.Parameter(torch.empty(num_tokens, width).normal_(std=0.02))
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, features: Tensor, seen: Tensor, target: Tensor) -> Tensor:
        """What the network thinks is at each place; ``seen`` and ``target`` are ``B S`` bool.

        Raises:
            ValueError: clips have another number of tokens than the network was built for.
        """
        _, places, tokens, _ = features.shape
        if tokens != len(self.token_embed):
            raise ValueError(f"expected {len(self.token_embed)} tokens in a clip, got {tokens}")
        x = torch.where(seen[..., None, None], self.embed(features), self.mask_token)
        x = x + rearrange(sincos_table(places, self.width).to(x), "s d -> s 1 d") + self.token_embed
        used = repeat(seen | target, "b s -> b (s n)", n=tokens)
        mask = Mask(lambda b, h, q, k: used[b, k], batch=len(used))
        x = rearrange(x, "b s n d -> b (s n) d")
        for block in self.blocks:
            x = block(x, mask=mask)
        return rearrange(self.norm(x), "b (s n) d -> b s n d", n=tokens)
