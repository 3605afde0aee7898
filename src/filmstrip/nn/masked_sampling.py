"""Masks for predicting codes from part of them, and filling a grid of codes in a few passes.

A network that predicts any codes from any others (Chang et al. 2022, MaskGIT) is a function from ids ``B N``, where
hidden places hold the id ``mask_id``, to logits ``B N K``.
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
    """How a grid of codes is filled.

    ``confidence`` keeps in each pass the codes that the network was surest of, as many as the schedule says (Chang et
    al. 2022). ``draft_and_revise`` draws the grid in random parts, then draws every part of it again given the rest
    (Lee et al. 2022).
    """

    method: Literal["confidence", "draft_and_revise"] = "confidence"
    steps: Count = 8
    """Passes that fill the grid, or draft it."""
    schedule: Schedule = "cosine"
    """How many codes are still hidden after each pass (``confidence``)."""
    confidence_noise: Weight = 4.5
    """Scale of the Gumbel noise on the logarithm of a code's probability, falling to zero at the last pass."""
    rounds: CountOrZero = 2
    """Times that the whole grid is revised (``draft_and_revise``)."""
    revise_steps: Count = 2
    """Parts, and so passes, of one round."""

    @property
    def passes(self) -> int:
        """How often the network runs for one grid."""
        return self.steps + (self.rounds * self.revise_steps if self.method == "draft_and_revise" else 0)

    def adapted(self, wish: Sampling | None) -> MaskedSampling:
        """These settings with a caller's temperature and the like, or all of its own if it says how to fill."""
        if wish is None or isinstance(wish, MaskedSampling):
            return wish or self
        return replace(self, **asdict(wish))


def hidden_share(progress: Tensor, schedule: Schedule) -> Tensor:
    """The share of codes that are hidden at a progress from 0 (all of them) to 1 (none)."""
    match schedule:
        case "cosine":
            return (progress * math.pi / 2).cos()
        case "linear":
            return 1 - progress
        case "square":
            return 1 - progress.square()
    raise UserError(f"there is no schedule {schedule!r}: choose cosine, linear or square")


def _rank(values: Tensor) -> Tensor:
    """The place of each value in its row, 0 for the smallest."""
    return values.argsort(dim=-1).argsort(dim=-1)


def draw_masks(seeds: Tensor, groups: int, places: int, *, schedule: Schedule, salt: int) -> Tensor:
    """Masks for training, True where hidden: ``B groups places``, from ``B`` seeds.

    Every group of places (a frame, say) hides a share of its own: the schedule's at a uniform progress, rounded up.
    """
    drawn = uniform(seeds, groups * (places + 1), salt).unflatten(1, (groups, places + 1))
    hidden = (hidden_share(drawn[..., :1], schedule) * places).ceil().clamp(min=1)
    return _rank(drawn[..., 1:]) < hidden


def partition(seeds: Tensor, unknown: Tensor, parts: int, *, salt: int) -> Tensor:
    """A random split of the unknown places (``B N``, True) into parts of nearly equal size.

    Returns the part of each place, ``B N`` int64; -1 for known places.
    """
    order = _rank(uniform(seeds, unknown.shape[1], salt) + (~unknown).to(torch.float32))
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
    salt: int,
) -> Tensor:
    """Fill the unknown places (``B N``, True) of ``ids`` in ``sampling.passes`` passes; the others stay as they are.

    Randomness comes from ``seeds`` (``B``) and ``salt``; a caller that fills several grids spaces salts by 4096.
    """
    if sampling.method == "confidence":
        return _by_confidence(predict, ids, unknown, mask_id, seeds, sampling, salt)
    return _draft_and_revise(predict, ids, unknown, mask_id, seeds, sampling, salt)


def _by_confidence(
    predict: Predict, ids: Tensor, unknown: Tensor, mask_id: int, seeds: Tensor, sampling: MaskedSampling, salt: int
) -> Tensor:
    places, count = ids.shape[1], unknown.sum(dim=1, keepdim=True)
    hidden = unknown
    for step in range(1, sampling.steps + 1):
        logits = predict(torch.where(hidden, mask_id, ids))
        for_codes, for_order = uniform(seeds, 2 * places, salt + step).chunk(2, dim=1)
        ids = torch.where(hidden, draw(logits, for_codes, sampling), ids)
        progress = torch.tensor(step / sampling.steps, device=ids.device)
        chosen = logits.log_softmax(dim=-1).gather(2, ids[..., None].clamp(0, logits.shape[2] - 1))[..., 0]
        gumbel = -(-(for_order + _TINY).log() + _TINY).log()
        confidence = chosen + sampling.confidence_noise * (1 - progress) * gumbel
        # what is known already is never hidden again; every pass settles one code at least
        left = (hidden_share(progress, sampling.schedule) * count).floor().minimum(hidden.sum(1, keepdim=True) - 1)
        if step < sampling.steps:
            hidden = _rank(confidence.masked_fill(~hidden, torch.inf)) < left
    return ids


def _draft_and_revise(
    predict: Predict, ids: Tensor, unknown: Tensor, mask_id: int, seeds: Tensor, sampling: MaskedSampling, salt: int
) -> Tensor:
    stages = [sampling.steps] + [sampling.revise_steps] * sampling.rounds
    ids = torch.where(unknown, mask_id, ids)
    for parts in stages:
        part = partition(seeds, unknown, parts, salt=salt)
        for k in range(parts):
            salt += 1
            hidden = part == k
            ids = torch.where(hidden, mask_id, ids)
            drawn = draw(predict(ids), uniform(seeds, ids.shape[1], salt), sampling)
            ids = torch.where(hidden, drawn, ids)
        salt += 1
    return ids


def draft_log_prob(
    predict: Predict, ids: Tensor, unknown: Tensor, *, mask_id: int, seeds: Tensor, parts: int, salt: int
) -> Tensor:
    """The log-probability (``B``, nats) that a draft in ``parts`` parts draws ``ids`` at the unknown places.

    Exact for the split that the seeds give (and a temperature of 1): within a part, codes are drawn independently.
    """
    part = partition(seeds, unknown, parts, salt=salt)
    total = torch.zeros(len(ids), device=ids.device)
    for k in range(parts):
        logits = predict(torch.where(part >= k, mask_id, ids)).float()
        each = logits.log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]
        total = total + each.masked_fill(part != k, 0).sum(dim=1)
    return total
