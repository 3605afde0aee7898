"""Writing texts token by token: the most probable tokens, drawn ones, or the best of several beams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, Rate, check_numbers
from filmstrip.nn.sampling import Sampling, draw

NextLogits = Callable[[Tensor, Tensor], Tensor]
"""Logits ``R V`` of the token after each of ``R`` texts ``R N`` (int64), of which text ``i`` continues the one that
was number ``rows[i]`` (``R``) of the call before."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a text is written."""

    max_tokens: Count = 20
    """Maximum number of tokens, the end included."""
    min_tokens: CountOrZero = 0
    """Minimum number of tokens before the end."""
    beams: Count = 1
    """Number of beginnings that are continued side by side (beam search); one draws tokens as ``sampling`` says."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    """Drawing of tokens, by default the most probable one."""
    repetition: Rate = 1.0
    """Divisor of a token's logit, or its factor below zero, once the text has the token (Keskar et al. 2019)."""

    def __post_init__(self) -> None:
        check_numbers(self)


def write(next_logits: NextLogits, begun: Tensor, writing: Writing, *, end: int, uniform: Tensor) -> Tensor:
    """What follows texts that have ``begun`` (``B P`` ids): ids ``B N`` with ``end`` behind the text, ``N`` at most
    ``max_tokens``.

    ``uniform`` (``B max_tokens``, in [0, 1)) is what tokens are drawn by.
    """
    if writing.beams > 1:
        return _searched(next_logits, begun, writing, end)
    text, rows = begun, torch.arange(len(begun), device=begun.device)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for n in range(writing.max_tokens):
        scores = _adjusted(next_logits(text, rows), text, writing, n, end)
        token = draw(scores, uniform[:, n], writing.sampling).masked_fill(ended, end)
        text = torch.cat([text, token[:, None]], dim=1)
        ended = ended | (token == end)
        if bool(ended.all()):
            break
    return text[:, begun.shape[1] :]


def _searched(next_logits: NextLogits, begun: Tensor, writing: Writing, end: int) -> Tensor:
    """Beam search: a text's score is its log-likelihood over its number of tokens, the end included.

    A text is finished when an unfinished one, as likely per token as it is now, could not be better.
    """
    (batch, first), beams, most = begun.shape, writing.beams, writing.max_tokens
    text = begun.repeat_interleave(beams, dim=0)
    own = torch.arange(batch, device=begun.device)[:, None] * beams
    rows = torch.arange(len(text), device=begun.device)
    score = torch.full((batch, beams), -torch.inf, device=begun.device)
    score[:, 0] = 0.0
    best = torch.full((batch, beams), -torch.inf, device=begun.device)
    written = torch.full((batch, beams, most), end, device=begun.device)
    searching = torch.ones(batch, 1, dtype=torch.bool, device=begun.device)
    for n in range(most):
        likely = F.log_softmax(next_logits(text, rows).float(), dim=-1)
        likely = _adjusted(likely, text, writing, n, end).unflatten(0, (batch, beams))
        vocab = likely.shape[2]
        top, place = (score[:, :, None] + likely).flatten(1).topk(min(2 * beams, beams * vocab))
        beam, token = own + place // vocab, place % vocab
        longer = torch.cat([text[beam], token[..., None]], dim=2)
        ends = (token == end) | (n + 1 == most)
        finished = (top / (n + 1)).masked_fill(~ends | ~searching, -torch.inf)[:, :beams]
        best, written = _kept(best, written, finished, F.pad(longer[:, :beams, first:], (0, most - n - 1), value=end))
        score, chosen = top.masked_fill(ends, -torch.inf).topk(beams)
        searching = searching & ((score[:, :1] / (n + 1) > best[:, -1:]) | best[:, -1:].isinf())
        if not bool(searching.any()):
            break
        text = longer.gather(1, chosen[..., None].expand(-1, -1, longer.shape[2])).flatten(0, 1)
        rows = beam.gather(1, chosen).flatten()
    return written[:, 0]


def _kept(best: Tensor, written: Tensor, scores: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """The best of finished texts and of new ones."""
    both, place = torch.cat([best, scores], dim=1).topk(best.shape[1])
    texts = torch.cat([written, texts], dim=1)
    return both, texts.gather(1, place[..., None].expand(-1, -1, texts.shape[2]))


def _adjusted(scores: Tensor, text: Tensor, writing: Writing, n: int, end: int) -> Tensor:
    """Scores ``R V`` of the token number ``n``: without the end before its time, repetitions made less likely."""
    if writing.repetition != 1.0:
        said = scores.gather(1, text)
        said = torch.where(said < 0, said * writing.repetition, said / writing.repetition)
        scores = scores.scatter(1, text, said)
    if n < writing.min_tokens:
        ending = torch.arange(scores.shape[1], device=scores.device) == end
        scores = scores.masked_fill(ending, -torch.inf)
    return scores
