"""Decoding a sequence of slots with an eye on texts, as SCHEMA does."""

from __future__ import annotations

from torch import Tensor, nn

from filmstrip.nn.attention import Attention


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
        said = self.norms_inside[1](self.dropout(self.to_texts(slots, context=texts.expand(len(slots), -1, -1))))
        slots = self.norms[1](slots + self.dropout(said))
        return self.norms[2](slots + self.mlp(slots))
