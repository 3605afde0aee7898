"""A model that has learnt to read longer texts does short ones as well as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.facts import ASK, FACT, NUMBER, NUMBERS, TOKENS, VOCAB, Language, changed, learn, learner, losses, rows
from claims.ledger import Claim, Figure, below, equal
from filmstrip.objectives.text import TextModel

SHORT, LONG = 128, 1024
STEPS, LONG_STEPS = 800, 100
TESTS = 64
PEOPLE, KNOWN = 10, 4
"""Names of which each pair has a number that no text states, and how many of those each short text asks for."""
RECALL = VOCAB
"""The id before a question for such a number."""
ARMS = {"after": 1e6, "unscaled": 1e4}
"""Rotary bases with which longer texts are learnt."""

CLAIM = Claim(
    systems=("language.lwm_text",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024, table 5.1: from 4K to a million tokens ARC goes from 0.40 to 0.43, HellaSwag from 0.57 "
    "to 0.57, OpenBookQA from 0.32 to 0.30, and MMLU from 0.39 to 0.35, by way of 0.41 at 256K.",
    here="A decoder of 2 layers, 64 wide, learns texts of 128 tokens (800 steps of 2,048) that ask for facts they "
    "stated, and for a number of each of 100 pairs of names that no text states (knowledge). Then 100 steps on texts "
    "of 1,024 tokens, in which nobody asks for knowledge, with a rotary base of a million in place of ten thousand. "
    "Tests are 64 short texts, and all 100 pairs. A number is one of 8.",
    baseline="The same model before the longer texts; and with the base as it was (unscaled).",
    figures={
        **{f"{when} answers": Figure(says=f"{when}: facts found in short texts, %") for when in ("before", *ARMS)},
        **{f"{when} nats": Figure(says=f"{when}: nats of short texts", digits=3) for when in ("before", *ARMS)},
        **{f"{when} known": Figure(says=f"{when}: knowledge recalled, %") for when in ("before", *ARMS)},
        **{f"{when} long": Figure(says=f"{when}: facts found in texts of 1,024, %") for when in ("before", *ARMS)},
    },
    expected=(
        equal("after answers", "before answers", "facts of short texts are found, within 3 points", within=3),
        equal("after nats", "before nats", "short texts are as probable, within 0.05 nats", within=0.05),
        equal("after known", "before known", "knowledge is kept, within 6 points (MMLU's)", within=6),
        below("before long", "after long", "long texts are read better", by=10),
    ),
    analysis="Short texts do not suffer: after the longer stage their facts are found more often (96 to 99%, 86 "
    "to 97% before) and they are more probable (1.33 to 1.35 nats, 1.57 to 1.76), as they are with the base "
    "unscaled; long texts are read for the first time (99.6 to 99.7% of answers, 8 to 17% before). Equality is "
    "not shown because the first stage had not ended learning, so that they are better than before, not equal. "
    "What a model of this size knows by heart is little (5 to 35%), and moves either way by more than the 6 "
    "points.",
    minutes=7,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    language = Language.drawn(seed)
    table = np.random.default_rng(seed + 400).integers(NUMBERS, size=(PEOPLE, PEOPLE))
    model = learn(learner(seed, vocab_size=VOCAB + 1), short(language, table, seed + 100), STEPS)
    tests = [language.texts(np.random.default_rng(seed + 200), count, length) for count, length in SIZES]
    found = asked("before", model, table, tests)
    for arm, base in ARMS.items():
        longer = learn(changed(model, rope_base=base), rows(language, seed + 300, LONG), LONG_STEPS)
        found |= asked(arm, longer, table, tests)
    return found


SIZES = ((TESTS, SHORT), (16, LONG))
"""Numbers and lengths of the texts for tests."""


def short(language: Language, table: np.ndarray, seed: int) -> Callable[[], dict[str, Tensor]]:
    """Draws short texts that end with questions for knowledge."""
    rng = np.random.default_rng(seed)

    def draw() -> dict[str, Tensor]:
        count = TOKENS // SHORT
        text, _ = language.texts(rng, count, SHORT - 4 * KNOWN)
        text = torch.cat(
            [text, questions(table, rng.integers(PEOPLE, size=(count * KNOWN, 2))).view(count, -1)], dim=1
        )
        return {"text": text, "learnt": torch.ones_like(text, dtype=torch.bool)}

    return draw


def questions(table: np.ndarray, pairs: np.ndarray) -> Tensor:
    """What is asked of pairs of names ``N 2``, and the number that is right: ``N 4``."""
    numbers = NUMBER + table[pairs[:, 0], pairs[:, 1]]
    return torch.from_numpy(np.stack([np.full(len(pairs), RECALL), *(ASK + pairs).T, numbers], axis=1))


def asked(when: str, model: TextModel, table: np.ndarray, tests: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """What a model finds in texts, and recalls."""
    (text, back), (long, long_back) = tests
    pairs = questions(table, np.argwhere(np.ones_like(table)))
    nats = losses(model, text)
    return {
        f"{when} answers": right(model, text, back > 0),
        f"{when} nats": float(nats[(text[:, 1:] >= NUMBER) & (text[:, 1:] < FACT)].mean()),
        f"{when} known": right(model, pairs, torch.tensor([False, False, False, True]).expand_as(pairs)),
        f"{when} long": right(model, long, long_back > 0),
    }


@torch.no_grad()
def right(model: TextModel, text: Tensor, answers: Tensor) -> float:
    """The percentage of answers in texts ``B L`` that a model puts first."""
    hidden = model.decoder(text[:, :-1]).hidden[answers[:, 1:]]
    return 100 * float((model.decoder.logits(hidden).argmax(dim=1) == text[:, 1:][answers[:, 1:]]).float().mean())
