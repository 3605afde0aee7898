"""Learning to localise actions without anchors: every row says what happens there, since when and until when."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Points(NamedTuple):
    """Where actions are looked for, one after the other through all levels of a pyramid."""

    time: Tensor
    """``N``, rows of the sequence."""
    stride: Tensor
    """``N``, rows from one point of the level to the next."""
    reach: Tensor
    """``N 2``, least and most distance, in rows, to the further end of an action that the level answers for."""


class Targets(NamedTuple):
    """What each point of each video is to say."""

    classes: Tensor
    """``B N C``, one where an action of that class is to be found."""
    distances: Tensor
    """``B N 2``, to its first and its last moment, in strides."""

    @property
    def positive(self) -> Tensor:
        """Where there is something to be found, ``B N``."""
        return self.classes.amax(dim=-1) > 0


def assign(points: Points, segments: Tensor, classes: Tensor, *, num_classes: int, radius: float) -> Targets:
    """Which point finds which action of ``segments`` (``B M 2``, rows; ``classes`` ``B M``, -1 in padding).

    A point finds actions whose middle is less than ``radius`` strides away, within which it lies and whose ends are
    within its level's reach; of several the shortest (Tian et al. 2019, FCOS; Zhang et al. 2022).
    """
    time, stride = points.time[:, None], points.stride[:, None]
    first, last = (ends[:, None] for ends in segments.unbind(-1))
    distances = torch.stack([time - first, last - time], dim=-1)
    middle = (first + last) / 2
    after = time - torch.maximum(middle - radius * stride, first)
    before = torch.minimum(middle + radius * stride, last) - time
    furthest = distances.amax(dim=-1)
    least, most = (bound[:, None] for bound in points.reach.unbind(-1))
    found = (torch.minimum(after, before) > 0) & (furthest >= least) & (furthest <= most) & (classes >= 0)[:, None]
    lengths = (last - first).masked_fill(~found, float("inf"))
    shortest, which = lengths.min(dim=-1, keepdim=True)
    # Actions of several classes may have the same times.
    tied = found & (lengths <= shortest + 1e-3)
    kinds = F.one_hot(classes.clamp(min=0), num_classes).to(segments.dtype)
    distances = distances.gather(2, which[..., None].expand(-1, -1, -1, 2))[:, :, 0] / stride
    return Targets((tied.to(segments.dtype) @ kinds).clamp(max=1.0), distances)


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Cross-entropy of independent classes that counts less what is easy (Lin et al. 2017), elementwise."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    missed = probability + targets - 2 * probability * targets
    return (alpha * targets + (1 - alpha) * (1 - targets)) * missed**gamma * entropy


def diou_loss(predicted: Tensor, true: Tensor, eps: float = 1e-8) -> Tensor:
    """One less the overlap of two segments around a point, plus how far their middles lie apart: ``... 2 -> ...``.

    Segments are given by the distances to both ends. The middles' distance is squared, as a share of what both
    cover (Zheng et al. 2020, distance IoU).
    """
    shared = torch.minimum(predicted, true).sum(dim=-1)
    either = predicted.sum(dim=-1) + true.sum(dim=-1) - shared
    covered = torch.maximum(predicted, true).sum(dim=-1)
    apart = ((predicted[..., 1] - predicted[..., 0]) - (true[..., 1] - true[..., 0])) / 2
    return 1 - shared / either.clamp(min=eps) + (apart / covered.clamp(min=eps)).square()
