"""A larger rotary base lets a model read on beyond the length it learnt, and is not the same as divided positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from claims.facts import FACT, WORD, Language, changed, learn, learner, losses, rows
from claims.ledger import Claim, Figure, above, below
from filmstrip.objectives.text import TextModel

SHORT, LONG = 128, 1024
STEPS, LONG_STEPS = 800, 40
TESTS = 16
ARMS = {"unscaled": {}, "base": {"rope_base": 1e6}, "index": {"rope_index_scale": LONG / SHORT}}
"""What is changed for the longer texts."""

CLAIM = Claim(
    systems=("language.lwm_text",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024, table D.1: rotary bases of 1 to 50 million take LLaMA-2 (10 thousand, 4K) to 32K and up "
    "to a million tokens. That a base scales as positions do is said in a lecture on it, and is wrong: pair i of d/2 "
    "slows by s^(2i/d). Loss by position is not reported.",
    here="A decoder of 2 layers, 64 wide, learns texts of 128 tokens that ask for facts they stated (800 steps of "
    "2,048 tokens), and reads 16 of 1,024 tokens, as it is and after 40 steps on such texts: with a base of a "
    "million in place of ten thousand (as the paper's first stage, also eight times as long), with positions divided "
    "by 8, or with neither. An answer is one of 8 numbers, 2.08 nats by chance; words follow from the two before.",
    baseline="The same model with neither (unscaled).",
    figures={
        **{f"{arm} near": Figure(says=f"{arm}, as it is: nats of an answer before 128", digits=2) for arm in ARMS},
        **{f"{arm} middle": Figure(says=f"{arm}, as it is: nats of an answer, 256 to 512", digits=2) for arm in ARMS},
        **{f"{arm} far": Figure(says=f"{arm}, as it is: nats of an answer from 512 on", digits=2) for arm in ARMS},
        **{f"{arm} words": Figure(says=f"{arm}, as it is: nats of a word before 128", digits=2) for arm in ARMS},
        **{f"{arm} learnt": Figure(says=f"{arm}, 40 steps: nats of an answer from 512 on", digits=2) for arm in ARMS},
        **{f"{arm} words learnt": Figure(says=f"{arm}, 40 steps: nats of a word", digits=2) for arm in ARMS},
    },
    expected=(
        below("base learnt", "unscaled learnt", "with a larger base longer texts are learnt sooner", by=0.3),
        above("unscaled far", "unscaled near", "unscaled, answers far beyond the learnt length are lost", by=1.0),
        below("base far", "unscaled far", "with a larger base they are found without any learning", by=1.0),
        below("index far", "unscaled far", "with divided positions too", by=1.0),
        below(
            "base words", "index words", "the larger base tells apart what is near, divided positions do not", by=0.5
        ),
        below("base words learnt", "index words learnt", "also after some learning"),
    ),
    analysis="Every direction is that of theory in every seed; what is not shown are sizes. Beyond the learnt "
    "length the model as it is has 4.1, 4.9 and 8.5 nats of an answer, more than chance, with the larger base "
    "0.35 to 0.72 without any learning, with divided positions 0.32 to 0.62: differences of 3.4 to 8.1 nats, "
    "whose spread over three seeds is as large as they are. Words, which follow from the two before, tell the two "
    "apart: 1.4 to 1.8 nats with the larger base, 3.2 to 3.3 with divided positions, and 1.4 against 1.9 to 2.1 "
    "after 40 steps.",
    minutes=4,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    language = Language.drawn(seed)
    model = learn(learner(seed), rows(language, seed + 100, SHORT), STEPS)
    tests = language.texts(np.random.default_rng(seed + 200), TESTS, LONG)
    found = {}
    for arm, positions in ARMS.items():
        longer = changed(model, **positions)
        found |= {f"{arm} {name}": nats for name, nats in by_place(longer, *tests).items() if name != "all words"}
        after = by_place(learn(longer, rows(language, seed + 300, LONG), LONG_STEPS), *tests)
        found |= {f"{arm} learnt": after["far"], f"{arm} words learnt": after["all words"]}
    return found


def by_place(model: TextModel, text: torch.Tensor, back: torch.Tensor) -> dict[str, float]:
    """Nats of answers and of words, by where they are."""
    nats, told = losses(model, text), text[:, 1:]
    at = torch.arange(1, text.shape[1]).expand_as(nats)
    answers, words = back[:, 1:] > 0, (told >= WORD) & (told < FACT)
    places = {
        "near": answers & (at < SHORT),
        "middle": answers & (at >= 2 * SHORT) & (at < LONG // 2),
        "far": answers & (at >= LONG // 2),
        "words": words & (at < SHORT),
        "all words": words,
    }
    return {name: float(nats[chosen].mean()) for name, chosen in places.items()}
