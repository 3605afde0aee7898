"""Scores of captions against references: CIDEr, BLEU, ROUGE-L and METEOR by pycocoevalcap, as papers report them.

CIDEr (Vedantam et al. 2015), BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004), METEOR (Denkowski and Lavie 2014). The
published numbers are of text that the Penn Treebank's tokenizer divided; it and METEOR are Java programs in that
package.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from filmstrip.errors import UserError

log = logging.getLogger(__name__)

Metric = Literal["exact", "bleu", "rouge", "cider", "meteor"]
METRICS: tuple[Metric, ...] = ("exact", "bleu", "rouge", "cider", "meteor")
PLAIN = " (plain tokens)"
"""End of the names of scores of text that a tokenizer of ours divided: no papers' numbers compare with them."""


def check_metrics(metrics: Sequence[Metric]) -> None:
    """See that what the metrics need is installed, and say what will be missing without Java.

    Raises:
        UserError: a package is missing; says which.
    """
    if set(metrics) <= {"exact"}:
        return
    try:
        import pycocoevalcap.bleu.bleu  # noqa: F401
    except ImportError:
        raise UserError(
            "CIDEr, BLEU, ROUGE-L and METEOR need pycocoevalcap: pip install 'filmstrip[captions]', or compare "
            "captions word for word alone (--metrics exact)"
        ) from None
    if shutil.which("java") is None:
        lost = " and METEOR" if "meteor" in metrics else ""
        log.warning("without java the tokenizer of papers%s are missing: other scores are of plain tokens", lost)


def caption_scores(
    given: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[Metric]
) -> Iterator[tuple[str, float]]:
    """The name and the value of each score of captions, of which each has several references.

    Without Java METEOR is left out, and names say that the text was divided into plain tokens. CIDEr compares with
    how common words are in all references: with a single clip it is zero.

    Raises:
        UserError: as :func:`check_metrics`.
    """
    check_metrics(metrics)
    if "exact" in metrics:
        right = [plain(text) in map(plain, told) for text, told in zip(given, references, strict=True)]
        yield "exact", sum(right) / len(right)
    wanted = [metric for metric in metrics if metric != "exact"]
    if not wanted:
        return
    end = ""
    said: Any = {i: [text] for i, text in enumerate(given)}
    truth: Any = {i: list(texts) for i, texts in enumerate(references)}
    if shutil.which("java") is not None:
        try:
            said, truth = _treebank(said), _treebank(truth)
        except OSError as error:
            log.warning("the tokenizer of papers cannot run (%s): scores are of plain tokens", error)
            end = PLAIN
    else:
        end = PLAIN
    if end:
        said, truth = ({i: [plain(text) for text in texts] for i, texts in all_.items()} for all_ in (said, truth))
    for metric in wanted:
        if metric == "meteor" and shutil.which("java") is None:
            continue
        yield from ((f"{name}{end}", value) for name, value in _score(metric, said, truth))


def _score(metric: Metric, said: Any, truth: Any) -> Iterator[tuple[str, float]]:
    if metric == "bleu":
        from pycocoevalcap.bleu.bleu import Bleu

        found, _ = Bleu(4).compute_score(truth, said, verbose=0)
        yield from ((f"bleu_{n}", float(value)) for n, value in enumerate(found, start=1))
    elif metric == "rouge":
        from pycocoevalcap.rouge.rouge import Rouge

        yield "rouge_l", float(Rouge().compute_score(truth, said)[0])
    elif metric == "cider":
        from pycocoevalcap.cider.cider import Cider

        yield "cider", float(Cider().compute_score(truth, said)[0])
    else:
        from pycocoevalcap.meteor.meteor import Meteor

        yield "meteor", float(Meteor().compute_score(truth, said)[0])


def _treebank(texts: dict[int, list[str]]) -> Any:
    """Texts as the Penn Treebank's tokenizer divides them, without marks."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    told = {i: [{"caption": text or " "} for text in each] for i, each in texts.items()}
    return PTBTokenizer().tokenize(told)


def plain(text: str) -> str:
    """A text in small letters, its words and numbers alone."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
