"""Masks for training on masked codes, and iterative parallel decoding of a grid of codes.

A network that predicts any codes from any others (Chang et al. 2022, MaskGIT) is a function from ids ``B N``, where
masked positions hold the id ``mask_id``, to logits ``B N K``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, Weight
from filmstrip.errors import UserError
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.randomness import uniform

Schedule = Literal["cosine", "linear", "square"]
Predict = Callable[[Tensor], Tensor]

_TINY = 1e-20


@dataclass(frozen=True, kw_only=True)
class MaskedSampling(Sampling):
    """Decoding of a grid of codes.

    ``confidence`` keeps in each pass the codes of maximum confidence, as many as the schedule says (Chang et al.
    2022). ``draft_and_revise`` samples the grid in random parts, then resamples every part given the rest (Lee et al.
    2022).
    """

    method: Literal["confidence", "draft_and_revise"] = "confidence"
    steps: Count = 8
    """Number of passes that fill the grid (``confidence``) or draft it (``draft_and_revise``)."""
    schedule: Schedule = "cosine"
    """Schedule of the share of codes still masked after each pass (``confidence``)."""
    confidence_noise: Weight = 4.5
    """Scale of the Gumbel noise added to a code's log-probability, annealed to zero at the last pass."""
    rounds: CountOrZero = 2
    """Number of revisions of the whole grid (``draft_and_revise``)."""
    revise_steps: Count = 2
    """Number of parts, and so of passes, in one revision."""

    @property
    def passes(self) -> int:
        """Number of network evaluations for one grid."""
        return self.steps + (self.rounds * self.revise_steps if self.method == "draft_and_revise" else 0)

    def adapted(self, wish: Sampling | None) -> MaskedSampling:
        """These settings with the caller's :class:`Sampling` values, or the caller's own if it is of this class."""
        if wish is None or isinstance(wish, MaskedSampling):
            return wish or self
        return replace(self, **asdict(wish))


def masked_share(progress: Tensor, schedule: Schedule) -> Tensor:
    """The share of codes masked at a progress from 0 (all of them) to 1 (none)."""
    match schedule:
        case "cosine":
            return (progress * math.pi / 2).cos()
        case "linear":
            return 1 - progress
        case "square":
            return 1 - progress.square()
    raise UserError(f"unknown schedule {schedule!r}: choose cosine, linear or square")


def _rank(values: Tensor) -> Tensor:
    """The rank of each value in its row, 0 for the minimum."""
    return values.argsort(dim=-1).argsort(dim=-1)


def draw_masks(seeds: Tensor, groups: int, positions: int, *, schedule: Schedule, use: str) -> Tensor:
    """Masks for training, True where masked: ``B groups positions``, from ``B`` seeds.

    Each group of positions (such as a frame) has its own share: the schedule's at a uniform progress, rounded up.
    """
    drawn = uniform(seeds, groups * (positions + 1), use).unflatten(1, (groups, positions + 1))
    masked = (masked_share(drawn[..., :1], schedule) * positions).ceil().clamp(min=1)
    return _rank(drawn[..., 1:]) < masked


def partition(seeds: Tensor, unknown: Tensor, parts: int, use: str, *index: int) -> Tensor:
    """A random split of the unknown positions (``B N``, True) into parts of nearly equal size.

    Returns the part of each position, ``B N`` int64; -1 for known positions.
    """
    order = _rank(uniform(seeds, unknown.shape[1], use, *index) + (~unknown).to(torch.float32))
    count = unknown.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(unknown, order * parts // count, -1)


def fill(
    predict: Predict,
    ids: Tensor,
    unknown: Tensor,
    *,
    mask_id: int,
    seeds: Tensor,
    sampling: MaskedSampling,
    use: str,
    index: int = 0,
) -> Tensor:
    """Fill the unknown positions (``B N``, True) of ``ids`` in ``sampling.passes`` passes; others do not change.

    Randomness comes from ``seeds`` (``B``) and ``use``; a caller that fills several grids numbers them by ``index``.
    """
    if sampling.method == "confidence":
        return _by_confidence(predict, ids, unknown, mask_id, seeds, sampling, use, index)
    return _draft_and_revise(predict, ids, unknown, mask_id, seeds, sampling, use, index)


def _by_confidence(
    predict: Predict,
    ids: Tensor,
    unknown: Tensor,
    mask_id: int,
    seeds: Tensor,
    sampling: MaskedSampling,
    use: str,
    index: int,
) -> Tensor:
    positions, count = ids.shape[1], unknown.sum(dim=1, keepdim=True)
    masked = unknown
    for step in range(1, sampling.steps + 1):
        logits = predict(torch.where(masked, mask_id, ids))
        for_codes, for_order = uniform(seeds, 2 * positions, use, index, step).chunk(2, dim=1)
        ids = torch.where(masked, draw(logits, for_codes, sampling), ids)
        progress = torch.tensor(step / sampling.steps, device=ids.device)
        chosen = logits.log_softmax(dim=-1).gather(2, ids[..., None].clamp(0, logits.shape[2] - 1))[..., 0]
        gumbel = -(-(for_order + _TINY).log() + _TINY).log()
        confidence = chosen + sampling.confidence_noise * (1 - progress) * gumbel
        # known codes are never masked again; every pass fixes at least one code
        left = (masked_share(progress, sampling.schedule) * count).floor().minimum(masked.sum(1, keepdim=True) - 1)
        if step < sampling.steps:
            masked = _rank(confidence.masked_fill(~masked, torch.inf)) < left
    return ids


def _draft_and_revise(
    predict: Predict,
    ids: Tensor,
    unknown: Tensor,
    mask_id: int,
    seeds: Tensor,
    sampling: MaskedSampling,
    use: str,
    index: int,
) -> Tensor:
    stages = [sampling.steps] + [sampling.revise_steps] * sampling.rounds
    ids = torch.where(unknown, mask_id, ids)
    for stage, parts in enumerate(stages):
        part = partition(seeds, unknown, parts, use, index, stage)
        for k in range(parts):
            masked = part == k
            ids = torch.where(masked, mask_id, ids)
            drawn = draw(predict(ids), uniform(seeds, ids.shape[1], use, index, stage, k), sampling)
            ids = torch.where(masked, drawn, ids)
    return ids


def draft_log_probs(
    predict: Predict, ids: Tensor, unknown: Tensor, *, mask_id: int, seeds: Tensor, parts: int, use: str
) -> Tensor:
    """The log-probability of each position (``B N``, nats, zero where it is known) that a draft in ``parts`` parts
    samples ``ids`` there.

    Their sum is exact for the split determined by the seeds, at temperature 1: within a part, codes are drawn
    independently.
    """
    part = partition(seeds, unknown, parts, use)
    total = torch.zeros(ids.shape, device=ids.device)
    for k in range(parts):
        logits = predict(torch.where(part >= k, mask_id, ids)).float()
        each = logits.log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]
        total = total + each.masked_fill(part != k, 0)
    return total
