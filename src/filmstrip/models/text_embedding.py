"""Token ids as the vectors that a transformer of video and text begins with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from filmstrip.nn.initialisation import STD


class TextEmbedding(nn.Module):
    """Vectors of token ids with learned positions, normalised, as BERT has them: ``B L -> B L D``.

    ``mask_id`` is the id of a masked token; where the vocabulary has none for it, there is one id more.
    """

    def __init__(self, width: int, *, vocab_size: int, max_length: int, mask_id: int | None, dropout: float) -> None:
        super().__init__()
        self.vocab_size, self.max_length = vocab_size, max_length
        self.mask_id = vocab_size if mask_id is None else mask_id
        self.embed = nn.Embedding(vocab_size + (mask_id is None), width)
        self.pos_embed = nn.Parameter(STD * torch.randn(max_length, width))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=STD)

    def forward(self, ids: Tensor) -> Tensor:
        """Embed ids.

        Raises:
            ValueError: the text is longer than there are positions.
        """
        if ids.shape[1] > self.max_length:
            raise ValueError(
                f"this network was built for texts of up to {self.max_length} tokens, got {ids.shape[1]}"
            )
        return self.dropout(self.norm(self.embed(ids) + self.pos_embed[: ids.shape[1]]))
