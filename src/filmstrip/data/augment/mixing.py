"""Mixup and cutmix: each clip and its label are blended with those of a partner, the batch in reverse order."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from filmstrip.data.augment.levels import parts, to_round_
from filmstrip.data.boxes import boxes
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.randomness import uniform

TABLE = 2048


def mix(batch: Batch, *, mixup: float, cutmix: float, num_classes: int | None) -> Batch:
    """Mix ``video`` (``B T C H W`` uint8) and ``label`` (which becomes ``B K`` probabilities).

    Mixup (Zhang et al. 2018) averages two clips with weights lambda and 1 - lambda; cutmix (Yun et al. 2019) pastes a
    box with 1 - lambda of the partner's area through all frames. Lambda comes from Beta(a, a), ``a`` being the
    parameter given; zero switches a kind off. With both, the first sample's seed decides for the batch.

    Raises:
        UserError: the batch has no labels, or the number of classes is unknown.
    """
    if "label" not in batch or num_classes is None:
        raise UserError("mixup and cutmix mix labels, and the data has none: set data.augment.mixup and cutmix to 0")
    video, label = batch["video"], batch["label"]
    draw = uniform(batch["seed"].cpu(), 4, "augment.mix")
    if cutmix and not (mixup and draw[0, 3] < 0.5):
        mixed, share = pasted(video, draw[:, 1], draw[:, 2], beta(draw[:, 0], cutmix))
    else:
        share = beta(draw[:, 0], mixup)
        mixed = averaged(video, share)
    share = share[:, None].to(label.device, non_blocking=True)
    probabilities = F.one_hot(label, num_classes).to(share.dtype) if label.ndim == 1 else label
    return {**batch, "video": mixed, "label": torch.lerp(probabilities.flip(0), probabilities, share)}


def averaged(video: Tensor, share: Tensor) -> Tensor:
    """Each clip of a uint8 batch averaged with its partner, its own weight being ``share`` (``B``)."""
    mixed = torch.empty_like(video)
    for out, own, other, weight in zip(mixed, video, video.unbind()[::-1], share.tolist()):
        for target, one, two in zip(parts(out), parts(own), parts(other)):
            target.copy_(to_round_(two.float().lerp_(one.float(), weight)))
    return mixed


def pasted(video: Tensor, y: Tensor, x: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """A batch with a box of each clip's partner pasted in, and the share of its area that each clip keeps.

    The share is the one asked for, but for whole pixels; ``y`` and ``x`` (``B``, 0..1) place the boxes.
    """
    height, width = video.shape[-2:]
    side = (1 - share).sqrt()
    mixed, kept = video.clone(), []
    for out, other, (rows, columns) in zip(
        mixed, video.unbind()[::-1], boxes(y, x, side * height, side * width, height, width)
    ):
        out[..., rows, columns] = other[..., rows, columns]
        kept.append(1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width))
    return mixed, torch.tensor(kept)


def beta(uniforms: Tensor, a: float) -> Tensor:
    """Turn uniform numbers into ones that follow Beta(a, a), by inverting its distribution function."""
    quantiles, cumulative = (torch.from_numpy(x).to(uniforms.device) for x in _lower_half(a))
    lower = torch.minimum(uniforms, 1 - uniforms).contiguous()
    right = torch.searchsorted(cumulative, lower).clamp(1, TABLE - 1)
    left = right - 1
    share = (lower - cumulative[left]) / (cumulative[right] - cumulative[left])
    x = torch.lerp(quantiles[left], quantiles[right], share.clamp(0, 1)) ** (1 / a)
    return torch.where(uniforms < 0.5, x, 1 - x)


@functools.cache
def _lower_half(a: float) -> tuple[np.ndarray, np.ndarray]:
    """Points ``x**a`` and the distribution function there, for x from 0 to 1/2 (the rest is symmetric).

    In ``z = x**a`` the density is ``(1 - z**(1/a))**(a-1)`` up to a factor: without the pole that it has in x.
    """
    z = np.linspace(0, 0.5**a, TABLE)
    density = (1 - z ** (1 / a)) ** (a - 1)
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return z.astype(np.float32), (0.5 * cumulative / cumulative[-1]).astype(np.float32)
