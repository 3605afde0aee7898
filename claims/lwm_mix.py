"""The more rows are conversations, not questions about long texts, the better the talk and the worse the recall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.facts import (
    ASK,
    END,
    FACT,
    NAMES,
    NUMBER,
    NUMBERS,
    TOKENS,
    VOCAB,
    WORD,
    WORDS,
    Language,
    changed,
    learn,
    learner,
    losses,
    rows,
)
from claims.ledger import Claim, Figure, above, below
from filmstrip.objectives.text import TextModel

USER, SAY = VOCAB, VOCAB + 1
"""The ids before what a user says, and before what is answered."""
SHORT, LONG, LONG_BASE = 128, 512, 1e6
STEPS, LONG_STEPS, MIX_STEPS = 700, 40, 60
QUESTIONS = 8
"""Number of questions at the end of a long text."""
DRAWS, TALKS = 240, 200
SHARES = (0, 40, 70, 90, 100)
"""Percentages of rows that are conversations."""
PAPER = {0: ("100", "2.42"), 40: ("100", "4.14"), 70: ("96", "4.62"), 90: ("55", "5.1"), 100: ("31", "5.8")}

CLAIM = Claim(
    systems=("language.lwm_text",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024, table D.6, at 128 thousand tokens: with 0, 40, 70, 90 and 100% of UltraChat beside "
    "questions about books MT-Bench is 2.42, 4.14, 4.62, 5.1 and 5.8, and needles are found in 100, 100, 96, 55 and "
    "31%.",
    here="A decoder of 2 layers, 64 wide, that has learnt to recall facts in texts of 128, then of 512 tokens, is "
    "tuned for 60 steps of 4 rows of 512 tokens. A row is one long text with 8 questions at its end, in a form of "
    "their own, or conversations one after another, in which the assistant says the user's words in a drawn other "
    "language. Answers alone are learnt, and each row counts once. 240 questions about new texts of 512; 200 new "
    "conversations.",
    baseline="The neighbouring shares. A number is one of 8: a guess is right in 12.5%.",
    figures={
        **{f"found {s}": Figure(says=f"{s}% talk: numbers found, %", paper=PAPER[s][0]) for s in SHARES},
        **{
            f"talk {s}": Figure(says=f"{s}% talk: nats of a word said", paper=f"MT-Bench {PAPER[s][1]}", digits=2)
            for s in SHARES
        },
        "found before": Figure(says="before tuning: numbers found, %"),
        "talk before": Figure(says="before tuning: nats of a word said", digits=2),
    },
    expected=(
        above("found 0", "found 100", "without questions about long texts fewer numbers are found", by=20),
        below("talk 100", "talk 0", "conversations alone make the best talk", by=0.5),
        above("found 40", "found 90", "recall falls with the share of talk"),
        below("talk 90", "talk 40", "talk improves with it"),
        above("found 70", "found 0", "seven of ten rows of talk cost little recall", by=-10),
    ),
    analysis="As found in every seed. The more rows are talk, the better the talk (6.2 to 13.1 nats with none, "
    "2.1 to 2.2 with 40%, 1.6 to 1.8 with 90%, 1.6 to 1.7 with nothing else) and the fewer numbers are found (93 "
    "to 98%, 95 to 98%, 82 to 89%, and 1, 1 and 27%). What is not shown is a matter of noise: how bad the talk of "
    "a model without any is, and how much of its recall one with talk alone keeps, differ widely between seeds.",
    minutes=8,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    language = Language.drawn(seed)
    other = np.random.default_rng(seed + 400).permutation(WORDS)
    model = learn(learner(seed, vocab_size=VOCAB + 2), rows(language, seed + 100, SHORT), STEPS)
    model = learn(changed(model, rope_base=LONG_BASE), rows(language, seed + 300, LONG), LONG_STEPS)
    rng = np.random.default_rng(seed + 200)
    asked = torch.tensor([asking(language, rng, 1)[0] for _ in range(DRAWS)])
    talks = [talk(language, other, rng) for _ in range(TALKS)]
    found = {"found before": recalled(model, asked), "talk before": nats(model, talks)}
    for share in SHARES:
        tuned = replace(model.config, average="examples").build()
        tuned.load_state_dict(model.state_dict())
        tuned = learn(tuned, mixed(language, other, share / 100, seed + 500), MIX_STEPS)
        found |= {f"found {share}": recalled(tuned, asked), f"talk {share}": nats(tuned, talks)}
    return found


def asking(language: Language, rng: np.random.Generator, questions: int) -> tuple[list[int], list[bool]]:
    """A row of a long text with questions at its end, and which tokens are learnt."""
    text, _ = language.text(rng, LONG - 4 * questions, asked=0.0)
    stated = [divmod(token - FACT, NUMBERS) for token in text if FACT <= token < FACT + NAMES * NUMBERS]
    learnt = [False] * len(text)
    for i in rng.choice(len(stated), questions, replace=False):
        name, number = stated[i]
        text += [USER, ASK + name, NUMBER + number, END]
        learnt += [False, False, True, True]
    return text, learnt


def talk(language: Language, other: np.ndarray, rng: np.random.Generator) -> tuple[list[int], list[bool]]:
    """A conversation: some words, and the same in another language; and which tokens are learnt."""
    words = spoken(language, rng, int(rng.integers(4, 13)))
    said = [WORD + int(other[word - WORD]) for word in words]
    return [USER, *words, SAY, *said, END], [False] * (len(words) + 2) + [True] * (len(words) + 1)


def spoken(language: Language, rng: np.random.Generator, count: int) -> list[int]:
    """Words that follow one another as in texts."""
    words = rng.integers(WORDS, size=2).tolist()
    for choice in rng.integers(2, size=count - 2).tolist():
        words.append(int(language.follows[words[-2], words[-1], choice]))
    return [WORD + word for word in words]


def mixed(language: Language, other: np.ndarray, share: float, seed: int) -> Callable[[], dict[str, Tensor]]:
    """Draws rows, of which a share are conversations one after another."""
    rng = np.random.default_rng(seed)

    def row() -> tuple[list[int], list[bool]]:
        if rng.random() >= share:
            return asking(language, rng, QUESTIONS)
        text: list[int] = []
        learnt: list[bool] = []
        while len(text) < LONG:
            more, own = talk(language, other, rng)
            text, learnt = text + more, learnt + own
        return text[:LONG], learnt[:LONG]

    def draw() -> dict[str, Tensor]:
        text, learnt = zip(*(row() for _ in range(TOKENS // LONG)))
        return {"text": torch.tensor(text), "learnt": torch.tensor(learnt)}

    return draw


@torch.no_grad()
def recalled(model: TextModel, asked: Tensor) -> float:
    """The percentage of questions at the end of long texts whose number a model puts first."""
    hits = []
    for part in asked.split(40):
        said = model.decoder.logits(model.decoder(part[:, :-2]).hidden[:, -1]).argmax(dim=1)
        hits.append(said == part[:, -2])
    return 100 * float(torch.cat(hits).float().mean())


def nats(model: TextModel, talks: list[tuple[list[int], list[bool]]]) -> float:
    """Nats of a token that an assistant says."""
    text = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in talks], batch_first=True)
    learnt = torch.nn.utils.rnn.pad_sequence([torch.tensor(own) for _, own in talks], batch_first=True)
    return float(losses(model, text)[learnt[:, 1:]].mean())
