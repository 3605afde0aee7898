"""Segments of time, ``N 2`` first and last moments: how much they share, and which of many to keep."""

from __future__ import annotations

import torch
from torch import Tensor


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of every pair of ``N 2`` and ``M 2`` segments, ``N M``; zero for two of no length."""
    first = torch.maximum(one[:, None, 0], other[None, :, 0])
    last = torch.minimum(one[:, None, 1], other[None, :, 1])
    shared = (last - first).clamp(min=0)
    lengths = [(segments[:, 1] - segments[:, 0]) for segments in (one, other)]
    either = lengths[0][:, None] + lengths[1][None] - shared
    return torch.where(either > 0, shared / either, 0)


def soft_nms(
    segments: Tensor, scores: Tensor, classes: Tensor, *, sigma: float, min_score: float, most: int
) -> tuple[Tensor, Tensor]:
    """Choose the best segment, lower the scores of those of its class that overlap it, and so on (Bodla et al. 2017).

    Scores (``N``) fall by ``exp(-iou^2 / sigma)``. Returns the places of up to ``most`` segments in the order in
    which they were chosen, and their scores by then, all of which are ``min_score`` or more.
    """
    left, chosen, kept = scores.clone(), [], []
    for _ in range(min(most, len(scores))):
        best = int(left.argmax())
        if left[best] < min_score:
            break
        chosen.append(best)
        kept.append(left[best].clone())
        overlap = iou(segments[best : best + 1], segments)[0]
        left *= torch.where(classes == classes[best], torch.exp(-overlap.square() / sigma), 1.0)
        left[best] = -1.0
    if not chosen:
        return scores.new_zeros(0, dtype=torch.int64), scores.new_zeros(0)
    return torch.tensor(chosen), torch.stack(kept)
