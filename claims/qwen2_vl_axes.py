"""Positions on three axes tell what came first as well as those on one axis do, and in longer videos better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from claims.asked import (
    COLOUR,
    NONE,
    WIDTH,
    WORD_STEPS,
    Asked,
    Told,
    decoder_config,
    learn,
    model_of,
    render,
    right,
    serialiser_of,
    teach,
    words,
)
from claims.ledger import Claim, Figure, Figures, above
from filmstrip.models.native_vit import TileMergerConfig
from filmstrip.systems.language.qwen2_vl import Qwen2VLConfig, VisionConfig

TRAIN, TESTS, STEPS, SIDE = 1000, 200, 300, 2
LEARNT, TESTED = (4, 8), (8, 16, 32)
"""Frames of videos that are learnt from, and of those that are asked about."""
SAYS = {"three": "three axes", "one": "one axis"}
AXES = {"three": (2, 3, 3), "one": None}
"""Pairs of a head's channels that each axis turns."""

CLAIM = Claim(
    systems=("language.qwen2_vl",),
    finding=__doc__.strip(),
    paper="Wang et al. 2024, from rotary positions of one axis to three: Perception Test 46.6 and 47.4, "
    "NextQA 43.9 and 46.0, STAR 55.5 and 57.9; and the model reads videos beyond the length of its training.",
    here=f"Videos of {SIDE} x {SIDE} cells of 8 pixels, {LEARNT[0]} or {LEARNT[1]} frames long, in which a "
    "square in one cell has one of six colours first, and another from the middle on. What comes first, or "
    "last? A frozen encoder knows the colours of patches and has positions of its own; two layers for each "
    f"token and a language model of two layers of {WIDTH}, which has learnt the answers blind ({WORD_STEPS} "
    f"steps), learn for {STEPS} steps of 32 questions about {2 * TRAIN} videos. Right answers about {TESTS} "
    f"others of each length of {', '.join(map(str, TESTED))} frames, word for word.",
    baseline="The same with one axis, the order of the sequence; and zeros for what is seen.",
    figures={
        **{
            f"{axes}, {frames}": Figure(says=f"{said}, {frames} frames: right answers, %")
            for axes, said in SAYS.items()
            for frames in TESTED
        },
        "blind": Figure(says="three axes, blind, 8 frames: right answers, %"),
    },
    expected=(
        above("three, 8", "one, 8", "at the length of training three axes answer at most 2 points less", by=-2.0),
        above("three, 32", "one, 32", "and at four times that length more"),
        above("three, 16", "one, 16", "and at twice it"),
        above("three, 8", "blind", "they look: by 20 points over the blind model", by=20.0),
    ),
    analysis="At the length of training both know nearly all in two seeds; in the third the model with one axis "
    "learned more slowly (64%), which makes the interval wide. In longer videos three axes lead in every seed at "
    "twice the length (by 1, 13.5 and 21 points) and in two of three at four times it, where both forget much.",
    minutes=2.5,
)


def measure(seed: int, folder: Path) -> Figures:
    drawn = [draw(TRAIN, frames, seed) for frames in LEARNT]
    train = [told for told, _ in drawn]
    tests = {frames: draw(TESTS, frames, seed + 10_000)[0] for frames in TESTED}
    serialiser = serialiser_of(*train)
    config = Qwen2VLConfig(
        encoder=VisionConfig(width=WIDTH, depth=1, num_heads=4, mlp_dim=2 * WIDTH, patch_size=(1, 8, 8)),
        connector=TileMergerConfig(side=1),
        decoder=decoder_config(serialiser),
        placeholders=tuple(serialiser.places.values()),
        trains=("connector", "decoder"),
        video_pixels=(16 * 16, 16 * 16),
    )
    encoder = config.build().encoder
    teach(encoder, train[0].clips, drawn[0][1], seed, places=False)
    found = {}
    for axes, sections in AXES.items():
        arm = replace(config, decoder=replace(config.decoder, rope_sections=sections))
        decoder = words(arm, serialiser, train, seed)
        model = learn(model_of(arm, encoder, decoder, seed), serialiser, train, STEPS, seed)
        found |= {f"{axes}, {frames}": right(model, serialiser, told)[""] for frames, told in tests.items()}
        if axes == "three":
            blind = model_of(replace(arm, sees=False), encoder, decoder, seed)
            found["blind"] = right(learn(blind, serialiser, train, STEPS, seed), serialiser, tests[8])[""]
    return found


def draw(count: int, frames: int, seed: int) -> tuple[Told, np.ndarray]:
    """Videos, a question about each, and their cells."""
    rng = np.random.default_rng((seed, frames))
    cells = np.full((count, frames, SIDE**2), NONE)
    asked = []
    for i, video in enumerate(cells):
        colours, where, last = rng.permutation(len(COLOUR))[:2], int(rng.integers(SIDE**2)), int(rng.integers(2))
        video[: frames // 2, where], video[frames // 2 :, where] = colours
        asked.append(Asked(i, "order", f"what comes {('first', 'last')[last]}?", COLOUR[colours[last]]))
    cells = cells.reshape(count, frames, SIDE, SIDE)
    return Told(render(cells, rng), asked), cells
