"""The network of VEDIT: a diffusion transformer over the embeddings of clips, some given and some being made."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from filmstrip.nn.rotary import Rotary
from filmstrip.nn.time_embedding import TimeEmbedding
from filmstrip.nn.two_branch import (
    AdaptiveNorm,
    AttentionKind,
    Modulation,
    Placement,
    TwoBranchBlock,
    allow_keys,
    modulate,
    split,
)


class AtTime(NamedTuple):
    """What a time asks of the network."""

    blocks: list[Modulation]
    last: Tensor
    """Of the norm after the blocks, ``B 2D``."""


class VEDiT(nn.Module):
    """The velocity of noisy clips, given seen ones: two-branch blocks between linear layers.

    Lin et al. 2024, section 3.2 and algorithm 1; what surrounds the blocks is that of Esser et al. 2024 (SD3), from
    which they come. A clip's tokens all stand at the clip's place in the procedure.
    """

    def __init__(
        self,
        *,
        feature_width: int,
        width: int,
        depth: int,
        num_heads: int,
        head_dim: int | None = None,
        mlp_ratio: float = 4.0,
        attention: AttentionKind = "joint",
    ) -> None:
        super().__init__()
        self.width = width
        self.target_in = nn.Linear(feature_width, width)
        self.seen_in = nn.Linear(feature_width, width)
        self.time = TimeEmbedding(width)
        self.rotary = Rotary(head_dim or width // num_heads)
        self.blocks = nn.ModuleList(
            TwoBranchBlock(
                width,
                num_heads,
                head_dim=head_dim,
                mlp_ratio=mlp_ratio,
                attention=attention,
                last=i == depth - 1,
            )
            for i in range(depth)
        )
        self.norm = AdaptiveNorm(width, 2)
        self.out = nn.Linear(width, feature_width)

    def place(
        self, target_places: Tensor, seen_places: Tensor, target_used: Tensor, seen_used: Tensor, num_tokens: int
    ) -> Placement:
        """Where clips of ``num_tokens`` tokens stand: places ``B T`` and ``B M`` (int64), and which count (bool)."""

        def tokens(x: Tensor) -> Tensor:
            return repeat(x, "b t -> b (t n)", n=num_tokens)

        targets, seen = tokens(target_used), tokens(seen_used)
        return Placement(
            target_angles=self.rotary(tokens(target_places)[..., None]),
            seen_angles=self.rotary(tokens(seen_places)[..., None]),
            targets=allow_keys(targets),
            seen=allow_keys(seen),
            both=allow_keys(torch.cat([targets, seen], dim=1)),
        )

    def embed(self, seen: Tensor) -> Tensor:
        """Tokens ``B (M N) width`` of seen clips ``B M N D``: the part of their branch that no time changes."""
        return self.seen_in(rearrange(seen, "b m n d -> b (m n) d"))

    def at_times(self, times: Tensor) -> list[AtTime]:
        """What each of ``K`` times (``K``, 0..1000) asks of the network, for a whole batch: no clip changes it."""
        embedded = self.time(times)
        blocks = [block.modulation(embedded) for block in self.blocks]
        rows = [[Modulation(*row) for row in zip(m.target.split(1), m.seen.split(1))] for m in blocks]
        return [AtTime(own, last) for *own, last in zip(*rows, self.norm(embedded).split(1))]

    def forward(self, target: Tensor, seen: Tensor | None, time: AtTime, placement: Placement) -> Tensor:
        """The velocity ``B T N D``, from data to noise, of clips ``B T N D``; ``time`` is of :meth:`at_times`.

        ``seen`` are tokens from :meth:`embed`; without them nothing is known of the other clips.
        """
        x = self.target_in(rearrange(target, "b t n d -> b (t n) d"))
        for block, modulation in zip(self.blocks, time.blocks):
            x, seen = block(x, seen, modulation, placement)
        velocity = self.out(modulate(x, *split(time.last, self.width)))
        return rearrange(velocity, "b (t n) d -> b t n d", n=target.shape[2])

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 before the blocks, ``i + 1`` for block ``i``."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.split(".")[0]) + 1
        return len(self.blocks) + 1 if part in ("norm", "out") else 0
