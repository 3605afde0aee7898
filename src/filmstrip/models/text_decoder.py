"""Decoding the unknown places of a sequence from the known ones, with an eye on texts, as SCHEMA does."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.nn.attention import Attention
from filmstrip.nn.positions import sincos_table
from filmstrip.nn.rotary import Rotary
from filmstrip.nn.time_embedding import TimeEmbedding
from filmstrip.nn.two_branch import Placement, TwoBranchBlock

_FULL_NOISE = 1000.0
"""The time of targets of which nothing is known."""


class TextDecoderBlock(nn.Module):
    """Slots look at each other, then at texts: ``B N D`` and ``M D`` to ``B N D``.

    Niu et al. 2024 (SCHEMA): normalised after each part is added, and what attention gives also before.
    """

    def __init__(self, width: int, num_heads: int, *, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.to_slots = Attention(width, num_heads)
        self.to_texts = Attention(width, num_heads, context_width=width)
        self.norms_inside = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        hidden = round(width * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, slots: Tensor, texts: Tensor) -> Tensor:
        """Apply the block."""
        said = self.norms_inside[0](self.dropout(self.to_slots(slots)))
        slots = self.norms[0](slots + self.dropout(said))
        # All rows read the same texts: as one row of many slots they share keys and values.
        read = self.to_texts(rearrange(slots, "b n d -> 1 (b n) d"), context=texts[None])
        said = self.norms_inside[1](self.dropout(read.view_as(slots)))
        slots = self.norms[1](slots + self.dropout(said))
        return self.norms[2](slots + self.mlp(slots))


class TextDecoder(nn.Module):
    """SCHEMA's: one row of slots, zeros where nothing is known, sines and cosines for places."""

    def __init__(self, width: int, depth: int, num_heads: int, *, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TextDecoderBlock(width, num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
        )

    def forward(self, known: Tensor, unknown: Tensor, texts: Tensor, told: Tensor | None = None) -> Tensor:
        """What stands at the places that are not known, ``B T D``, in order.

        ``known`` is ``B M D``, in order; ``unknown`` (``M + T``, bool) says which places are not; ``texts`` are
        ``K D``; ``told`` (``B D``) is said to every slot.
        """
        slots = known.new_zeros(len(known), len(unknown), known.shape[-1])
        slots[:, ~unknown] = known
        slots = slots + sincos_table(len(unknown), known.shape[-1]).to(slots)
        if told is not None:
            slots = slots + told[:, None]
        for block in self.blocks:
            slots = block(slots, texts)
        return slots[:, unknown]


class TwoBranchTextDecoder(nn.Module):
    """The same with VEDIT's blocks: the unknown slots are its targets, known ones and texts are what it sees.

    Lin et al. 2024, section 4.2. One pass, at the time of full noise: the places are empty, as SCHEMA has them.
    Texts stand before the first slot.
    """

    def __init__(self, width: int, depth: int, num_heads: int, *, mlp_ratio: float) -> None:
        super().__init__()
        self.rotary = Rotary(width // num_heads)
        self.time = TimeEmbedding(width)
        self.empty = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            TwoBranchBlock(width, num_heads, mlp_ratio=mlp_ratio, last=i == depth - 1) for i in range(depth)
        )

    def forward(self, known: Tensor, unknown: Tensor, texts: Tensor, told: Tensor | None = None) -> Tensor:
        """As :class:`TextDecoder`; the blocks' conditioning is told too."""
        places = torch.arange(1, len(unknown) + 1, device=known.device)
        angles = self.rotary(torch.cat([places, places.new_zeros(len(texts))])[:, None])
        of_texts = angles[len(unknown) :]
        placement = Placement(
            target_angles=angles[: len(unknown)][unknown],
            seen_angles=torch.cat([angles[: len(unknown)][~unknown], of_texts]),
            targets=None,
            seen=None,
            both=None,
        )
        time = self.time(torch.full((1,), _FULL_NOISE, device=known.device))
        time = time if told is None else time + told
        seen = torch.cat([known, texts.expand(len(known), -1, -1)], dim=1)
        target = repeat(self.empty, "d -> b t d", b=len(known), t=int(unknown.sum()))
        for block in self.blocks:
            target, seen = block(target, seen, block.modulation(time), placement)
        return target
