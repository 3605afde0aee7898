"""LaViLa's rephraser: any encoder-decoder of text, such as a T5 that paraphrases, says sentences anew.

``filmstrip rephrase`` asks it about all captions of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.randomness import uniform

PREFIX = "paraphrase: "
"""What paraphrasers of T5's kind are asked with."""


class Said(NamedTuple):
    """Texts that were written side by side."""

    ids: Tensor
    """Token ids ``B G N``; behind the end of a text there is padding."""
    scores: Tensor
    """Each text's log-likelihood less what was taken for repeating others, per token, ``B G``."""


class Paraphraser(NamedTuple):
    """An encoder-decoder of text, of ``transformers``, and its tokenizer."""

    model: Any
    tokenizer: Any


@torch.no_grad()
def diverse(model: Any, ids: Tensor, mask: Tensor, *, groups: int, diversity: float, count: int) -> Said:
    """``groups`` texts of at most ``count`` tokens for each of ``B L`` ids (``mask`` 1 where they are no padding).

    Diverse beam search (Vijayakumar et al. 2018) in groups of one: each text takes its most probable token, where
    ``diversity`` is taken from the log-probability of a token for each text before it that has taken it in this step.
    """

    def choose(likely: Tensor, ended: Tensor, step: int) -> tuple[Tensor, Tensor]:
        tokens, scores, taken = [], [], torch.zeros_like(likely[:, 0])
        for g in range(groups):
            score, chosen = (likely[:, g] - diversity * taken).max(dim=1)
            taken.scatter_add_(1, chosen[:, None], (~ended[:, g, None]).to(taken.dtype))
            tokens.append(chosen)
            scores.append(score)
        return torch.stack(tokens, dim=1), torch.stack(scores, dim=1)

    return _written(model, ids, mask, groups, count, choose)


@torch.no_grad()
def sampled(
    model: Any, ids: Tensor, mask: Tensor, *, groups: int, sampling: Sampling, seeds: Tensor, count: int
) -> Said:
    """As :func:`diverse`, but each text is drawn for itself, from ``seeds`` (``B``), as ``sampling`` says."""

    def choose(likely: Tensor, ended: Tensor, step: int) -> tuple[Tensor, Tensor]:
        chance = uniform(seeds, groups, "lavila.rephrase", step)
        tokens = draw(likely, chance, sampling)
        return tokens, likely.gather(2, tokens[..., None])[..., 0]

    return _written(model, ids, mask, groups, count, choose)


_Choose = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Next tokens ``B G`` and their scores, of log-probabilities ``B G V``, which texts have ended, and the step."""


def _written(model: Any, ids: Tensor, mask: Tensor, groups: int, count: int, choose: _Choose) -> Said:
    config = model.config
    batch, end, pad = len(ids), config.eos_token_id, config.pad_token_id
    encoded = model.get_encoder()(input_ids=ids, attention_mask=mask)
    encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(groups, dim=0)
    seen = mask.repeat_interleave(groups, dim=0)
    token = torch.full((batch, groups), config.decoder_start_token_id, device=ids.device)
    ended = torch.zeros(batch, groups, dtype=torch.bool, device=ids.device)
    total, lengths, said, cache = torch.zeros(batch, groups, device=ids.device), torch.zeros_like(token), [], None
    for step in range(count):
        out = model(
            encoder_outputs=encoded,
            attention_mask=seen,
            decoder_input_ids=token.view(-1, 1),
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        likely = F.log_softmax(out.logits[:, -1].float(), dim=-1).view(batch, groups, -1)
        chosen, scores = choose(likely, ended, step)
        token = chosen.masked_fill(ended, pad)
        total += scores.masked_fill(ended, 0.0)
        lengths = lengths + ~ended
        said.append(token)
        ended = ended | (token == end)
        if bool(ended.all()):
            break
    return Said(torch.stack(said, dim=2), total / lengths)


def rephrased(
    texts: Sequence[str],
    paraphraser: Paraphraser,
    *,
    keep: int = 3,
    groups: int = 20,
    diversity: float = 0.7,
    sampling: Sampling | None = None,
    seeds: Sequence[int] = (),
    max_tokens: int = 77,
    prefix: str = PREFIX,
) -> list[list[str]]:
    """At most ``keep`` sentences for each text, the best first, all different from it and from one another.

    Of ``groups`` that are written side by side: by diverse beam search, or drawn from ``seeds``, one for each text,
    where ``sampling`` says how.
    """
    model, tokenizer = paraphraser
    asked = tokenizer([prefix + text for text in texts], return_tensors="pt", padding=True).to(model.device)
    if sampling is None:
        said = diverse(
            model, asked.input_ids, asked.attention_mask, groups=groups, diversity=diversity, count=max_tokens
        )
    else:
        said = sampled(
            model,
            asked.input_ids,
            asked.attention_mask,
            groups=groups,
            sampling=sampling,
            seeds=torch.tensor(seeds, device=model.device),
            count=max_tokens,
        )
    found = []
    for text, ids, scores in zip(texts, said.ids, said.scores):
        best = [ids[i].tolist() for i in scores.argsort(descending=True, stable=True).tolist()]
        found.append(_different(text, tokenizer.batch_decode(best, skip_special_tokens=True))[:keep])
    return found


def open_paraphraser(source: Path) -> Paraphraser:
    """The encoder-decoder, in evaluation mode, of a folder in the Hub's layout.

    Raises:
        UserError: ``transformers`` is not installed, or the folder holds no such model.
    """
    try:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError:
        raise UserError("rephrasing needs transformers: pip install 'filmstrip[language]'") from None
    if not Path(source).is_dir():
        raise UserError(f"{source} is not a folder: give the folder of an encoder-decoder of text, such as a T5")
    try:
        local = {"local_files_only": True, "trust_remote_code": False}
        model = AutoModelForSeq2SeqLM.from_pretrained(source, use_safetensors=True, **local).eval()
        return Paraphraser(model, AutoTokenizer.from_pretrained(source, **local))
    except Exception as error:  # of many kinds, by what is missing or damaged
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{source} holds no encoder-decoder of text that can be read: {reason}") from None


def _different(text: str, others: Sequence[str]) -> list[str]:
    """Those of ``others`` that differ from a text and from those before, but for case and spaces."""
    seen, kept = {_plain(text), ""}, []
    for other in others:
        if _plain(other) not in seen:
            seen.add(_plain(other))
            kept.append(" ".join(other.split()))
    return kept


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
