"""A decoder that predicts something at wanted positions of a clip's grid from the encoded visible tubelets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.nn.block import Block
from filmstrip.nn.initialisation import init_glorot
from filmstrip.nn.positions import PositionKind, fixed_positions
from filmstrip.protocols import Grid


@dataclass(frozen=True, kw_only=True)
class DecoderArchitecture:
    """The configuration of a :class:`TubeletDecoder`."""

    decoder_width: Count
    """Channels of a token in the decoder."""
    decoder_depth: Count
    """Number of the decoder's blocks."""
    decoder_num_heads: Count
    """Attention heads of a block of the decoder."""


class TubeletDecoder(nn.Module):
    """One vector for each wanted position: mask tokens at these attend to the projected visible tokens.

    ``positions``: fixed sine-cosine vectors of the flattened grid (``table``) or of its axes (``axes``).
    """

    def __init__(
        self,
        config: DecoderArchitecture,
        grid: Grid,
        *,
        input_width: int,
        output_width: int,
        positions: PositionKind = "table",
        project_bias: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width, depth = config.decoder_width, config.decoder_depth
        self.project = nn.Linear(input_width, width, bias=project_bias)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.register_buffer("positions", fixed_positions(positions, grid, width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(width, config.decoder_num_heads, qkv_bias="no_key", drop_path=drop_path * i / max(1, depth - 1))
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)  # as in the blocks
        self.head = nn.Linear(width, output_width)
        self.apply(init_glorot)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, encoded: Tensor, visible: Tensor, wanted: Tensor) -> Tensor:
        """Predictions ``B K D`` at ``wanted`` (``B K``), from ``B V C`` tokens at ``visible`` (``B V``)."""
        seen = self.project(encoded)
        positions = self.positions.to(seen.dtype)
        tokens = torch.cat([seen + positions[visible], self.mask_token.to(seen.dtype) + positions[wanted]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, visible.shape[1] :]))
