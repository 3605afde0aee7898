"""Tokenizers of variable length: what they promise, and what "good enough" can mean to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from filmstrip.nn.length_search import Method
from filmstrip.protocols import Encoder, Tokens

Distance = Callable[[Tensor, Tensor], Tensor]
"""``distance(rebuilt, video)``: one number for each sample, ``B``, of ``B T C H W`` videos in 0..1; low is good. It
need not be differentiable."""


@dataclass
class Fitted:
    """A video coded by as few tokens as its target allows."""

    tokens: Tokens
    """Tokens, with their ``lengths`` (``B b``)."""
    rebuilt: Tensor
    """Video decoded from the tokens, ``B T C H W`` in 0..1."""
    errors: Tensor
    """The distance of each block from the original, ``B b``; above the target if the most tokens were not enough."""
    evaluations: int
    """Times that the search for each block's length encoded and decoded it."""


@runtime_checkable
class ElasticTokenizer(Protocol):
    """A :class:`~filmstrip.protocols.Tokenizer` that spends as many tokens on each block of a video as it is told."""

    tokens_per_block: int
    block_frames: int
    min_tokens: int
    max_tokens: int
    """The fewest and the most tokens of a block that it was trained for."""

    def encode(self, video: Tensor, lengths: Tensor | int | None = None) -> Tokens:
        """Code ``B T C H W`` video in so many tokens a block, ``B b`` or the same for all; by default the most."""
        ...

    def decode(self, tokens: Tokens) -> Tensor:
        """Rebuild ``B T C H W`` video in 0..1."""
        ...

    def encode_to(self, video: Tensor, target: float, *, method: Method, bins: int, distance: Distance) -> Fitted:
        """Code each block in the fewest tokens for which ``distance`` is at most ``target``."""
        ...


def mean_squared_error(rebuilt: Tensor, video: Tensor) -> Tensor:
    """Squared error of pixels in 0..1, ``B``."""
    return (rebuilt - video).square().flatten(1).mean(dim=1)


def cosine_distance(encoder: Encoder) -> Distance:
    """One minus the cosine of the mean features that ``encoder`` has of the two videos."""

    def distance(rebuilt: Tensor, video: Tensor) -> Tensor:
        ours, theirs = (encoder(clip).pooled() for clip in (rebuilt, video))
        return 1 - F.cosine_similarity(ours, theirs, dim=1)

    return distance
