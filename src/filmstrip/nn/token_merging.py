"""Merging tokens that are alike: bipartite soft matching (Bolya et al. 2023, ToMe), down to any number of tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Merged(NamedTuple):
    """Tokens, each the mean of those that were merged into it."""

    tokens: Tensor
    """``B N D``, in no order of space or time: those that stayed alone by how alike they were, then the others."""
    sizes: Tensor
    """Number of tokens that each stands for, ``B N``, float32."""


def schedule(have: int, count: int) -> list[int]:
    """Number of tokens that are gone after each step from ``have`` down to ``count``: half of them, or the rest."""
    gone = []
    while have > count:
        gone.append(min(have // 2, have - count))
        have -= gone[-1]
    return gone


def merged(tokens: Tensor, count: int, *, num_heads: int = 1) -> Merged:
    """``count`` tokens of ``B N D``: in each step at most every second one joins the most similar of the others.

    Similarity is the cosine of what heads have on average; a token counts by its size. Where there are no more than
    ``count`` tokens they are returned as they are.
    """
    sizes = torch.ones(tokens.shape[:2], device=tokens.device)
    for gone in schedule(tokens.shape[1], count):
        tokens, sizes = _step(tokens, sizes, gone, num_heads)
    return Merged(tokens, sizes)


def _step(tokens: Tensor, sizes: Tensor, gone: int, num_heads: int) -> Merged:
    """Tokens at even places, of which the ``gone`` most similar ones join one at an odd place each."""
    with torch.no_grad():
        metric = tokens.unflatten(2, (num_heads, -1)).mean(dim=2).float()
        metric = metric / metric.norm(dim=-1, keepdim=True)
        best, partner = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(dim=-1)
        order = best.argsort(dim=1, descending=True, stable=True)
        joins, stays = order[:, :gone], order[:, gone:]
        to = partner.gather(1, joins)
    weighted = torch.cat([tokens * sizes[..., None].to(tokens.dtype), sizes[..., None].to(tokens.dtype)], dim=2)
    even, odd = weighted[:, ::2], weighted[:, 1::2]

    def at(index: Tensor) -> Tensor:
        return index[..., None].expand(-1, -1, weighted.shape[2])

    odd = odd.scatter_add(1, at(to), even.gather(1, at(joins)))
    summed = torch.cat([even.gather(1, at(stays)), odd], dim=1)
    return Merged(summed[..., :-1] / summed[..., -1:], summed[..., -1].detach().float())
