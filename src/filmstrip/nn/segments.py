"""Temporal segments, ``N 2`` start and end times: overlaps, other coordinates, and non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of every pair of ``N 2`` and ``M 2`` segments, ``N M``; zero for two of zero length."""
    first = torch.maximum(one[:, None, 0], other[None, :, 0])
    last = torch.minimum(one[:, None, 1], other[None, :, 1])
    shared = (last - first).clamp(min=0)
    lengths = [(segments[:, 1] - segments[:, 0]) for segments in (one, other)]
    either = lengths[0][:, None] + lengths[1][None] - shared
    return torch.where(either > 0, shared / either, 0)


def generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of segments ``... 2``, less the share of their hull that neither covers: ``...``.

    Rezatofighi et al. 2019; shapes broadcast. Two of zero length at one place have none, here 0.
    """
    shared = (torch.minimum(one[..., 1], other[..., 1]) - torch.maximum(one[..., 0], other[..., 0])).clamp(min=0)
    either = one[..., 1] - one[..., 0] + other[..., 1] - other[..., 0] - shared
    hull = torch.maximum(one[..., 1], other[..., 1]) - torch.minimum(one[..., 0], other[..., 0])
    least = torch.finfo(one.dtype).tiny
    return shared / either.clamp(min=least) - (hull - either) / hull.clamp(min=least)


def start_and_end(segments: Tensor) -> Tensor:
    """Segments ``... 2`` given by centre and length as start and end."""
    centre, length = segments.unbind(-1)
    return torch.stack([centre - length / 2, centre + length / 2], dim=-1)


def centre_and_length(segments: Tensor) -> Tensor:
    """The inverse of :func:`start_and_end`."""
    start, end = segments.unbind(-1)
    return torch.stack([(start + end) / 2, end - start], dim=-1)


def soft_nms(
    segments: Tensor, scores: Tensor, classes: Tensor, *, sigma: float, min_score: float, max_segments: int
) -> tuple[Tensor, Tensor]:
    """Soft non-maximum suppression (Bodla et al. 2017).

    Repeatedly selects the segment of maximum score; scores (``N``) of the same class are multiplied by ``exp(-iou^2 /
    sigma)``. Returns the indices of at most ``max_segments`` segments in the order of selection, and their lowered
    scores, all at least ``min_score``.
    """
    left, chosen, kept = scores.clone(), [], []
    for _ in range(min(max_segments, len(scores))):
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
