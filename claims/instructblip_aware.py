"""Queries that read the instruction find what is asked, where as few queries that do not have to keep everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from claims.asked import (
    COLOUR,
    WIDTH,
    WORD_STEPS,
    Asked,
    Told,
    decoder_config,
    encoder_config,
    learn,
    model_of,
    render,
    right,
    serialiser_of,
    teach,
    words,
)
from claims.ledger import Claim, Figure, Figures, above
from filmstrip.models.query_connector import QueryConnectorConfig
from filmstrip.models.query_transformer import QueryTransformerConfig
from filmstrip.systems.language.instructblip import InstructBlipConfig

TRAIN, TESTS, STEPS, SIDE, QUERIES = 2000, 200, 700, 2, 1
ARMS = {"instructed": "queries read the instruction", "blind queries": "queries do not, as BLIP-2's"}

CLAIM = Claim(
    systems=("language.instructblip", "language.blip2"),
    finding=__doc__.strip(),
    paper="Dai et al. 2023, FlanT5-XL with and without the instruction in the query transformer: held-in data "
    "94.1 and 89.8, GQA 48.4 and 45.9, ScienceQA 70.4 and 63.4, iVQA 53.1 and 47.5.",
    here=f"Pictures of {SIDE} x {SIDE} cells of 8 pixels that hold squares of four of six colours. What is in "
    f"a cell, and where is a colour? A frozen encoder knows colours and places of patches; {QUERIES} query of "
    f"two layers reads it, and a language model of two layers of {WIDTH}, which has learnt the answers blind "
    f"({WORD_STEPS} steps), learns with it for {STEPS} steps of 32 questions about {TRAIN} pictures. Right "
    f"answers about {TESTS} others, word for word.",
    baseline="The same network whose query does not read the instruction, which is BLIP-2's second stage; and "
    "the instructed one with zeros for what it sees.",
    figures={
        **{name: Figure(says=f"{says}: right answers, %") for name, says in ARMS.items()},
        "blind": Figure(says="instructed, blind: right answers, %"),
    },
    expected=(
        above("instructed", "blind queries", "queries that read the instruction answer more, by 10 points", by=10.0),
        above("instructed", "blind", "and they look: by 20 points over the blind model", by=20.0),
    ),
    minutes=3,
)


def measure(seed: int, folder: Path) -> Figures:
    train, cells = draw(TRAIN, seed)
    test, _ = draw(TESTS, seed + 10_000)
    serialiser = serialiser_of(train)
    queries = QueryTransformerConfig(
        num_queries=QUERIES,
        width=WIDTH,
        depth=2,
        num_heads=4,
        mlp_dim=2 * WIDTH,
        vocab_size=serialiser.tokenizer.size,
        max_length=32,
    )
    config = InstructBlipConfig(
        encoder=encoder_config(1, size=8 * SIDE),
        connector=QueryConnectorConfig(queries=queries, per_frame=True),
        decoder=decoder_config(serialiser),
        placeholders=tuple(serialiser.places.values()),
        trains=("connector", "decoder"),
    )
    without = replace(queries, vocab_size=None)
    arms = {
        "instructed": config,
        "blind queries": replace(config, instructed=False, connector=replace(config.connector, queries=without)),
        "blind": replace(config, sees=False),
    }
    encoder = config.build().encoder
    teach(encoder, train.clips, cells, seed)
    decoder = words(config, serialiser, [train], seed)
    found = {}
    for name, arm in arms.items():
        model = learn(model_of(arm, encoder, decoder, seed), serialiser, [train], STEPS, seed)
        found[name] = right(model, serialiser, test)[""]
    return found


def draw(count: int, seed: int) -> tuple[Told, np.ndarray]:
    """Pictures, a question of each kind about each, and their cells."""
    rng = np.random.default_rng((seed, 0))
    cells = np.stack([rng.permutation(len(COLOUR))[: SIDE**2] for _ in range(count)])
    asked = []
    for i, row in enumerate(cells):
        one, other = (int(where) for where in rng.integers(SIDE**2, size=2))
        asked += [
            Asked(i, "colour", f"in cell {one}?", COLOUR[int(row[one])]),
            Asked(i, "place", f"where is {COLOUR[int(row[other])]}?", str(other)),
        ]
    cells = cells.reshape(count, 1, SIDE, SIDE)
    return Told(render(cells, rng), asked), cells
