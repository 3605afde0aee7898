"""LaViLa's rephraser: any encoder-decoder of text, such as a T5 that paraphrases, says sentences anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.data.layouts.manifest import cell_of, open_manifest
from filmstrip.errors import UserError
from filmstrip.files import write_csv

PREFIX = "paraphrase: "
"""What paraphrasers of T5's kind are asked with."""


class Said(NamedTuple):
    """Texts that were written side by side."""

    ids: Tensor
    """Token ids ``B G N``; behind the end of a text there is padding."""
    scores: Tensor
    """Each text's log-likelihood less what was taken for repeating others, per token, ``B G``."""


@torch.no_grad()
def diverse(model: Any, ids: Tensor, mask: Tensor, *, groups: int, diversity: float, count: int) -> Said:
    """``groups`` texts of at most ``count`` tokens for each of ``B L`` ids (``mask`` 1 where they are no padding).

    Diverse beam search (Vijayakumar et al. 2018) in groups of one: each text takes its most probable token, where
    ``diversity`` is taken from the log-probability of a token for each text before it that has taken it in this step.
    """
    config = model.config
    batch, end, pad = len(ids), config.eos_token_id, config.pad_token_id
    encoded = model.get_encoder()(input_ids=ids, attention_mask=mask)
    encoded.last_hidden_state = encoded.last_hidden_state.repeat_interleave(groups, dim=0)
    seen = mask.repeat_interleave(groups, dim=0)
    token = torch.full((batch, groups), config.decoder_start_token_id, device=ids.device)
    ended = torch.zeros(batch, groups, dtype=torch.bool, device=ids.device)
    total, lengths, said, cache = torch.zeros(batch, groups, device=ids.device), torch.zeros_like(token), [], None
    for _ in range(count):
        out = model(
            encoder_outputs=encoded,
            attention_mask=seen,
            decoder_input_ids=token.view(-1, 1),
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        likely = F.log_softmax(out.logits[:, -1].float(), dim=-1).view(batch, groups, -1)
        taken = torch.zeros_like(likely[:, 0])
        for g in range(groups):
            score, chosen = (likely[:, g] - diversity * taken).max(dim=1)
            token[:, g] = chosen.masked_fill(ended[:, g], pad)
            total[:, g] += score.masked_fill(ended[:, g], 0.0)
            taken.scatter_add_(1, chosen[:, None], (~ended[:, g, None]).to(taken.dtype))
        lengths = lengths + ~ended
        said.append(token.clone())
        ended = ended | (token == end)
        if bool(ended.all()):
            break
    return Said(torch.stack(said, dim=2), total / lengths)


def rephrased(
    texts: Sequence[str],
    source: Path,
    *,
    keep: int = 3,
    groups: int = 20,
    diversity: float = 0.7,
    max_tokens: int = 77,
    prefix: str = PREFIX,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
) -> list[list[str]]:
    """At most ``keep`` sentences for each text, the best first, all different from it and from one another.

    ``source`` is a folder of an encoder-decoder and its tokenizer in the Hub's layout.

    Raises:
        UserError: ``transformers`` is not installed, or the folder holds no such model.
    """
    model, tokenizer = _opened(source)
    model = model.to(device).eval()
    found = []
    for begin in range(0, len(texts), batch_size):
        some = texts[begin : begin + batch_size]
        asked = tokenizer([prefix + text for text in some], return_tensors="pt", padding=True).to(device)
        said = diverse(
            model, asked.input_ids, asked.attention_mask, groups=groups, diversity=diversity, count=max_tokens
        )
        for text, ids, scores in zip(some, said.ids, said.scores):
            best = [ids[i].tolist() for i in scores.argsort(descending=True).tolist()]
            found.append(_different(text, tokenizer.batch_decode(best, skip_special_tokens=True))[:keep])
    return found


def write_rephrased(manifest: Path, source: Path, out: Path, *, split: str = "train", **options: Any) -> int:
    """Write a manifest with the captions of another one, and :func:`rephrased` ones behind those of a split.

    ``options`` are those of :func:`rephrased`; returns the number of sentences that were added. Paths are absolute.

    Raises:
        UserError: no row has a caption, ``out`` exists, or as :func:`rephrased`.
    """
    if out.exists():
        raise UserError(f"{out} exists already: choose another file")
    samples = open_manifest(manifest).samples
    texts = list(dict.fromkeys(text for s in samples if s.split == split for text in s.text))
    if not texts:
        raise UserError(f"no row of the split {split!r} of {manifest} has a caption (a column caption)")
    others = dict(zip(texts, rephrased(texts, source, **options), strict=True))
    rows, added = [], 0
    for sample in samples:
        new = [other for text in sample.text for other in others.get(text, ())] if sample.split == split else []
        told = list(dict.fromkeys([*sample.text, *new]))
        added += len(told) - len(sample.text)
        path = str(Path(sample.path).absolute())
        span = ["" if at is None else f"{at:g}" for at in (sample.start, sample.end)]
        values = (path, sample.split, *span, cell_of(told) or "")
        rows.append(dict(zip(("path", "split", "start", "end", "caption"), values, strict=True)))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(rows, out)
    return added


def _opened(source: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError:
        raise UserError("rephrasing needs transformers: pip install 'filmstrip[language]'") from None
    if not Path(source).is_dir():
        raise UserError(f"{source} is not a folder: give the folder of an encoder-decoder of text, such as a T5")
    try:
        local = {"local_files_only": True, "trust_remote_code": False}
        model = AutoModelForSeq2SeqLM.from_pretrained(source, use_safetensors=True, **local)
        return model, AutoTokenizer.from_pretrained(source, **local)
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
