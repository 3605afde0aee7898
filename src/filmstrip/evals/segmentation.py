"""Measures of segmented objects: region similarity J, boundary accuracy F, and their statistics over a film.

As in the public evaluation of DAVIS 2017, semi-supervised (Perazzi et al. 2016, section 5; Pont-Tuset et al. 2017).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 0.008
"""Distance within which boundaries match, as a share of the frame's diagonal."""
BINS = 4
"""Number of parts of a film between which the decay is measured."""


class Statistics(NamedTuple):
    """A measure over the frames of one object."""

    mean: float
    recall: float
    """Share of frames above one half."""
    decay: float
    """Mean over the first quarter of the film less that over the last."""


def region_similarity(predicted: Tensor, truth: Tensor) -> float:
    """J: intersection over union of two masks ``H W`` (bool); 1 if both are empty."""
    union = (predicted | truth).sum().item()
    return (predicted & truth).sum().item() / union if union else 1.0


def boundary_accuracy(predicted: Tensor, truth: Tensor, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of precision and recall of the boundary of a mask ``H W`` (bool).

    A boundary pixel is found if the other mask has one within ``tolerance`` times the diagonal, rounded up to pixels.
    1 if neither mask has a boundary, 0 if one of them has.
    """
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    ours, theirs = boundary(predicted), boundary(truth)
    if not ours.any() or not theirs.any():
        return float(not ours.any() and not theirs.any())
    # Only where there are boundaries: objects rarely fill the frame.
    where = (ours | theirs).nonzero()
    (top, left), (bottom, right) = where.amin(dim=0).tolist(), (where.amax(dim=0) + 1).tolist()
    ours, theirs = ours[top:bottom, left:right], theirs[top:bottom, left:right]
    precision = (ours & dilated(theirs, radius)).sum().item() / ours.sum().item()
    recall = (theirs & dilated(ours, radius)).sum().item() / theirs.sum().item()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Tensor) -> Tensor:
    """Pixels of ``H W`` (bool) that differ from the neighbour to the right, below, or between these two."""
    beyond = F.pad(mask[None, None].float(), (0, 1, 0, 1), mode="replicate")[0, 0].bool()
    return (mask ^ beyond[:-1, 1:]) | (mask ^ beyond[1:, :-1]) | (mask ^ beyond[1:, 1:])


def dilated(mask: Tensor, radius: int) -> Tensor:
    """Pixels of ``H W`` (bool) with one of the mask within ``radius`` pixels, Euclidean."""
    height, source = mask.shape[0], mask[None, None].float()
    found = torch.zeros_like(source)
    for dy in range(min(radius, height - 1) + 1):
        half = math.isqrt(radius**2 - dy**2)
        wide = F.max_pool2d(source, (1, 2 * half + 1), stride=1, padding=(0, half))
        found[..., dy:, :] = torch.maximum(found[..., dy:, :], wide[..., : height - dy, :])
        found[..., : height - dy, :] = torch.maximum(found[..., : height - dy, :], wide[..., dy:, :])
    return found[0, 0].bool()


def statistics(values: Tensor) -> Statistics:
    """Mean, recall and decay of a measure over frames, ``T``.

    Neighbouring quarters of the film share a frame, as published; there the positions of frames are kept in 8 bits,
    which confuses the quarters of films of more than 256 frames, and here they are not.
    """
    values = values.double()
    ends = (torch.linspace(1, len(values), BINS + 1, dtype=torch.float64) + 1e-10).round().long() - 1
    first, last = values[ends[0] : ends[1] + 1], values[ends[-2] : ends[-1] + 1]
    return Statistics(
        values.mean().item(), (values > 0.5).double().mean().item(), (first.mean() - last.mean()).item()
    )
