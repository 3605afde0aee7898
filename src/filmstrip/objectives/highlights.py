"""Highlights: clips that raters found good are to score higher than others (Lei et al. 2021)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from filmstrip.protocols import Batch
from filmstrip.randomness import uniform


class Pairs(NamedTuple):
    """Clips to compare, two of each video."""

    better: Tensor
    """Indices of clips, ``B 2``."""
    worse: Tensor
    """Indices of clips, ``B 2``."""
    there: Tensor
    """Which pairs exist, ``B 2`` bool: a video may have no clip that is relevant."""


def draw_pairs(batch: Batch, valid: Tensor, *, rated: bool) -> Pairs:
    """Pairs of clips from each video's own seed; ``valid`` (``B T``) says where there is video.

    With ``rated`` clips, the best and the worst of those that are relevant, and one that is relevant with one that is
    not; a video without the latter has the first pair twice. Otherwise two of either side. Equal clips are drawn
    from.
    """
    ratings, relevant = batch["saliency"].sum(dim=-1), batch["relevant"] & valid
    rows, clips = relevant.shape
    draws = uniform(batch["seed"], 2 * clips, "highlights.pairs").view(rows, 2, clips)

    def drawn(keys: Tensor, among: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The ``count`` largest keys ``among`` some; a lone one stands for those that are missing."""
        best, index = keys.masked_fill(~among, float("-inf")).topk(count, dim=1)
        there = best.isfinite()
        return index.where(there, index[:, :1]), there[:, :1].expand(-1, count)

    other = valid & ~relevant
    if not rated:
        better, there = drawn(draws[:, 0], relevant, 2)
        worse, apart = drawn(draws[:, 1], other, 2)
        return Pairs(better, worse, there & apart)
    best, there = drawn(ratings + draws[:, 0], relevant, 1)
    worst, _ = drawn(draws[:, 0] - ratings, relevant, 1)
    some, _ = drawn(draws[:, 1], relevant, 1)
    none, apart = drawn(draws[:, 1], other, 1)
    better = torch.cat([best, torch.where(apart, some, best)], dim=1)
    worse = torch.cat([worst, torch.where(apart, none, worst)], dim=1)
    return Pairs(better, worse, there.expand(-1, 2))


def ranking_loss(scores: Tensor, pairs: Pairs, margin: float) -> Tensor:
    """How far the better clip of each pair is from being ``margin`` above the other, summed over a video's pairs.

    The mean over the videos of scores ``B T``.
    """
    apart = scores.gather(1, pairs.better) - scores.gather(1, pairs.worse)
    return ((margin - apart).clamp(min=0) * pairs.there).sum(dim=1).mean()
