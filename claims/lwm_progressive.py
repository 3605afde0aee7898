"""Texts of growing length teach a model to read long ones with less computation than long ones from the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from claims.facts import BASE, TOKENS, VOCAB, Language, changed, learn, learner, losses, rows
from claims.ledger import Claim, Figure, below
from filmstrip.objectives.text import TextModel

STAGES = ((128, BASE), (256, 1e5), (512, 3e5), (1024, 1e6))
"""Tokens of a text and rotary base of each stage."""
STEPS, LONG_STEPS = 700, 60
"""Steps of the first stage and of each further one."""
TESTS = 16
LONG, LONG_BASE = STAGES[-1]

CLAIM = Claim(
    systems=("language.lwm_text",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024: stages of 32K, 128K, 256K, 512K and a million tokens save computation, since most tokens "
    "are read in shorter texts; no run from the start at the full length is shown.",
    here="A decoder of 2 layers, 64 wide: 700 steps of 2,048 tokens on texts of 128 tokens that ask for facts they "
    "stated, then 60 each on 256, 512 and 1,024, with growing rotary bases; or as many multiply-adds on texts of "
    "1,024 alone, with the last base. Nats on 16 texts of 1,024; an answer is one of 8 numbers, 2.08 nats by chance.",
    baseline="Texts of 1,024 tokens from the start: as many multiply-adds, and half of them.",
    figures={
        "ladder": Figure(says="stages: nats of an answer at 1,024", digits=2),
        "direct": Figure(says="1,024 from the start: nats of an answer", digits=2),
        "direct half": Figure(says="1,024 from the start, half of the computation: nats of an answer", digits=2),
        "ladder all": Figure(says="stages: nats of any token", digits=2),
        "direct all": Figure(says="1,024 from the start: nats of any token", digits=2),
        "first": Figure(says="first stage alone, with the last base: nats of an answer at 1,024", digits=2),
        "direct steps": Figure(says="1,024 from the start: steps", digits=0),
    },
    expected=(
        below("ladder", "direct", "stages reach a lower loss of answers with as much computation", by=0.2),
        below("ladder all", "direct all", "also of all tokens"),
        below("ladder", "first", "the further stages are needed"),
    ),
    minutes=12,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    language = Language.drawn(seed)
    text, back = language.texts(np.random.default_rng(seed + 200), TESTS, LONG)
    answers = back[:, 1:] > 0

    def nats(model: TextModel) -> tuple[float, float]:
        found = losses(model, text)
        return float(found[answers].mean()), float(found.mean())

    model = learner(seed)
    for i, (length, base) in enumerate(STAGES):
        stage = rows(language, seed + 100 + i, length)
        model = learn(changed(model, rope_base=base), stage, LONG_STEPS if i else STEPS)
        if not i:
            first, _ = nats(changed(model, rope_base=LONG_BASE))
    ladder, ladder_all = nats(model)

    budget = sum((LONG_STEPS if i else STEPS) * cost(length) for i, (length, _) in enumerate(STAGES))
    steps = round(budget / cost(LONG))
    model, draw = learner(seed, rope_base=LONG_BASE), rows(language, seed + 300, LONG)
    half, _ = nats(learn(model, draw, steps // 2))
    direct, direct_all = nats(learn(model, draw, steps - steps // 2))
    return {
        "ladder": ladder,
        "direct": direct,
        "direct half": half,
        "ladder all": ladder_all,
        "direct all": direct_all,
        "first": first,
        "direct steps": float(steps),
    }


def cost(length: int) -> float:
    """Multiply-adds of a step, forward, by the length of its texts: matrices, and scores and sums of attention."""
    config = learner(0).config.decoder
    width, depth = config.width, config.depth
    matrices = depth * width * (4 * width + 3 * config.mlp_dim) + width * VOCAB
    return TOKENS * (matrices + depth * 2 * width * (length + 1) / 2)
