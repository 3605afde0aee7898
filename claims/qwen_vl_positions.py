"""Queries whose positions tell places apart read where things are, and write it as boxes; what is there they know
without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from claims.asked import (
    COLOUR,
    NONE,
    WIDTH,
    WORD_STEPS,
    Asked,
    Told,
    asks,
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
from filmstrip.data.kinds.conversations import prompts
from filmstrip.evals.answers import answers
from filmstrip.objectives.language import VideoLanguage
from filmstrip.systems.language.qwen_vl import AdapterConfig, QwenVLConfig
from filmstrip.text.boxes import box_text, boxes_in
from filmstrip.text.conversation import Serialiser

TRAIN, TESTS, STEPS, SIDE, QUERIES = 2000, 200, 900, 4, 4
"""Pictures, steps, rows and columns of cells, and queries (a square number)."""
LENGTH = 24
"""Tokens of an answer, at most: a box has 15 to 21."""
ARMS = {"positions": "queries and keys with positions", "none": "without"}
KINDS = {
    "box": "boxes that overlap the square by half and more",
    "colour": "right colours",
}

CLAIM = Claim(
    systems=("language.qwen_vl",),
    finding=" ".join(__doc__.split()),
    paper="Bai et al. 2023 add positions of rows and columns to queries and keys, lest compression lose where "
    "things are; boxes are text, of which RefCOCO's testA finds 92.26% at an overlap of 0.5. Without "
    "positions no figure.",
    here=f"Pictures of {SIDE} x {SIDE} cells of 8 pixels, of which one holds a square of one of six colours. "
    "Where is it (a box in thousandths, as text), and what colour is it? A frozen encoder, with positions of "
    f"its own, knows the colours of patches; {QUERIES} queries read its {SIDE**2} tokens, and a language model "
    f"of two layers of {WIDTH}, which has learnt the answers blind ({WORD_STEPS} steps), learns with them for "
    f"{STEPS} steps of 32 questions about {TRAIN} pictures. Answers about {TESTS} others; a text that is no "
    "box is a wrong one.",
    baseline="The same adapter without positions; and zeros for what is seen.",
    figures={
        **{
            f"{name}, {kind}": Figure(
                says=f"{said}: {says}, %",
                paper="92.26 (RefCOCO testA)" if (name, kind) == ("positions", "box") else "",
            )
            for name, said in ARMS.items()
            for kind, says in KINDS.items()
        },
        "blind, box": Figure(says="with positions, blind: boxes, %"),
        "blind, colour": Figure(says="with positions, blind: right colours, %"),
    },
    expected=(
        above(
            "positions, box", "none, box", "positions find boxes that are not found without, by 10 points", by=10.0
        ),
        above("none, colour", "positions, colour", "colours are known as well without, within 5 points", by=-5.0),
        above("positions, box", "blind, box", "boxes are read off the picture: 20 points over the blind", by=20.0),
    ),
    minutes=5,
)


def measure(seed: int, folder: Path) -> Figures:
    train, cells = draw(TRAIN, seed)
    test, _ = draw(TESTS, seed + 10_000)
    serialiser = serialiser_of(train)
    config = QwenVLConfig(
        encoder=encoder_config(1, size=8 * SIDE),
        connector=AdapterConfig(side=int(QUERIES**0.5), num_heads=4),
        decoder=decoder_config(serialiser),
        placeholders=tuple(serialiser.places.values()),
        trains=("connector", "decoder"),
    )
    arms = {
        "positions": config,
        "none": replace(config, connector=replace(config.connector, positions=False)),
        "blind": replace(config, sees=False),
    }
    encoder = config.build().encoder
    teach(encoder, train.clips, cells, seed, places=False)
    decoder = words(config, serialiser, [train], seed)
    boxes, colours = (Told(test.clips, [one for one in test.asked if one.kind == kind]) for kind in KINDS)
    found = {}
    for name, arm in arms.items():
        model = learn(model_of(arm, encoder, decoder, seed), serialiser, [train], STEPS, seed)
        found |= {f"{name}, box": found_boxes(model, serialiser, boxes)}
        found |= {f"{name}, colour": right(model, serialiser, colours)[""]}
    return found


@torch.no_grad()
def found_boxes(model: VideoLanguage, serialiser: Serialiser, told: Told) -> float:
    """The percentage of answers with a box that overlaps the right one by half or more."""
    overlaps = []
    for begin in range(0, len(told.asked), 100):
        some = told.asked[begin : begin + 100]
        visual = model.see(told.clips[[one.clip for one in some]])
        batch = prompts(serialiser, [[asks(one)] for one in some])
        for one, own in zip(some, answers(model, visual, batch, serialiser, count=LENGTH)):
            said, wanted = boxes_in(own), boxes_in(one.answer)
            overlaps.append(overlap(said[0], wanted[0]) if said else 0.0)
    return 100 * float(np.mean([value >= 0.5 for value in overlaps]))


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    left, top = (max(one[i], other[i]) for i in (0, 1))
    right_, bottom = (min(one[i], other[i]) for i in (2, 3))
    both = max(0.0, right_ - left) * max(0.0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / max(sum(areas) - both, 1e-9)


def draw(count: int, seed: int) -> tuple[Told, np.ndarray]:
    """Pictures, a question of each kind about each, and their cells."""
    rng = np.random.default_rng((seed, 0))
    cells = np.full((count, 1, SIDE**2), NONE)
    asked = []
    for i, picture in enumerate(cells[:, 0]):
        colour, where = int(rng.integers(len(COLOUR))), int(rng.integers(SIDE**2))
        picture[where] = colour
        row, column = divmod(where, SIDE)
        box = box_text([column / SIDE, row / SIDE, (column + 1) / SIDE, (row + 1) / SIDE])
        asked += [Asked(i, "box", "where is it?", box), Asked(i, "colour", "what colour is it?", COLOUR[colour])]
    cells = cells.reshape(count, 1, SIDE, SIDE)
    return Told(render(cells, rng), asked), cells
