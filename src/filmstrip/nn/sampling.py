"""How samples are drawn; and sampling from categorical distributions, each sample with its own random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from filmstrip.bounds import AnyNumber, Count, PositiveShare, Weight, check_numbers


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """How samples are drawn: subclasses have the settings of a way of doing so."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Sampling(SampleSettings):
    """Temperature, truncation and guidance of a categorical distribution before sampling."""

    temperature: Weight = 1.0
    """Divisor of the logits; zero takes the most probable id."""
    top_k: Count | None = None
    """Number of most probable ids kept (and all tied with the last of them); none keeps all."""
    top_p: PositiveShare | None = None
    """Cumulative probability of the most probable ids kept, nucleus sampling (Holtzman et al. 2020); none keeps
    all."""
    guidance: AnyNumber = 1.0
    """Classifier-free guidance scale: extrapolation from unconditional to conditional logits (Ho and Salimans 2022);
    1 is the conditional logits alone."""


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """``unconditional + guidance * (conditional - unconditional)`` logits."""
    return torch.lerp(unconditional, conditional, guidance)


def restricted(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits ``... K`` by temperature (above zero), top-k, then top-p; excluded ids are minus infinity."""
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        last = logits.topk(sampling.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < last, float("-inf"))
    if sampling.top_p is not None and sampling.top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        share = ordered.softmax(dim=-1)
        enough = share.cumsum(dim=-1) - share >= sampling.top_p  # reached before this one: the first is always kept
        logits = logits.masked_fill(enough.scatter(-1, order, enough), float("-inf"))
    return logits


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Ids ``...`` int64 from logits ``... K``, inverting the distribution at ``uniform`` (``...``, in [0, 1)).

    Ids of probability zero are never drawn. The result of a sample does not depend on its batch.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    # In float64 the largest float32 below one, times the total, stays below the total.
    cumulative = restricted(logits.float(), sampling).softmax(dim=-1).double().cumsum(dim=-1)
    target = uniform.double()[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0]
