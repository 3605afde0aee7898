"""Drawing from categorical distributions, each sample with random numbers of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from filmstrip.bounds import AnyNumber, Count, PositiveShare, Weight, check_numbers


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a distribution is sharpened before it is drawn from."""

    temperature: Weight = 1.0
    """Logits are divided by this; zero takes the most likely."""
    top_k: Count | None = None
    """Only so many of the most likely are drawn (all that are as likely as the last of them)."""
    top_p: PositiveShare | None = None
    """Only the fewest most likely are drawn that together have this probability (Holtzman et al. 2020)."""
    guidance: AnyNumber = 1.0
    """Logits move this far from what they are without the condition to what they are with it (Ho and Salimans 2022);
    1 is the condition alone."""

    def __post_init__(self) -> None:
        check_numbers(self)


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Logits ``guidance`` times as far from the unconditional ones as the conditional ones are."""
    return torch.lerp(unconditional, conditional, guidance)


def restricted(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits ``... K`` by temperature (above zero), top-k, then top-p; what must not be drawn is minus infinity."""
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        last = logits.topk(sampling.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < last, float("-inf"))
    if sampling.top_p is not None and sampling.top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        share = ordered.softmax(dim=-1)
        enough = share.cumsum(dim=-1) - share >= sampling.top_p  # reached before this one: the first always stays
        logits = logits.masked_fill(enough.scatter(-1, order, enough), float("-inf"))
    return logits


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Ids ``...`` int64 from logits ``... K``, inverting the distribution at ``uniform`` (``...``, in [0, 1)).

    Nothing of probability zero is drawn. The same numbers give the same ids in any batch.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    # In float64 the largest float32 below one, times the total, stays below the total.
    cumulative = restricted(logits.float(), sampling).softmax(dim=-1).double().cumsum(dim=-1)
    target = uniform.double()[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0]
