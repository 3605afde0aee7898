"""Queries of a whole clip know what came first if the frames' times are added, and the mean of frames does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from claims.asked import (
    COLOUR,
    WIDTH,
    WORD_STEPS,
    Asked,
    MeanOfFramesConfig,
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
from filmstrip.models.query_transformer import QueryTransformerConfig
from filmstrip.objectives.language import VideoLanguageConfig
from filmstrip.systems.language.video_llama import VideoLlamaConfig, VideoQueriesConfig

TRAIN, TESTS, STEPS, FRAMES, SIDE, QUERIES = 2000, 200, 300, 3, 2, 4
ARMS = {
    "times": "queries of the clip, times of the frames added",
    "no times": "the same without times",
    "mean": "the mean of the frames",
    "blind": "with times, blind",
}

CLAIM = Claim(
    systems=("language.video_llama",),
    finding=__doc__.strip(),
    paper="Zhang et al. 2023 add a learned vector of its time to each frame's queries, so that a query "
    "transformer over all frames models what changes between them; in words, without figures.",
    here=f"Videos of {FRAMES} frames of {SIDE} x {SIDE} cells of 8 pixels, each frame of another one of six "
    "colours. Which comes first, and which last? A frozen encoder knows colours and places of patches; "
    f"{QUERIES} queries of each frame and {QUERIES} of the clip, a layer each, and a language model of two "
    f"layers of {WIDTH}, which has learnt the answers blind ({WORD_STEPS} steps), get {STEPS} steps of 32 "
    f"questions about {TRAIN} videos. Right answers about {TESTS} others, word for word: who knows the colours "
    f"and not their order has one in {FRAMES} right.",
    baseline=f"Times that are zeros; the mean over the frames of each cell's token ({SIDE**2} tokens, two "
    "layers); and zeros for what is seen.",
    figures={name: Figure(says=f"{says}: right answers, %") for name, says in ARMS.items()},
    expected=(
        above("times", "mean", "queries with times know the order, the frames' mean less, by 20 points", by=20.0),
        above("times", "no times", "and less without times, by 20", by=20.0),
        above("no times", "blind", "without times they know what was there"),
        above("times", "blind", "they look: by 20 points over the blind model", by=20.0),
    ),
    minutes=2.5,
)


def measure(seed: int, folder: Path) -> Figures:
    train, cells = draw(TRAIN, seed)
    test, _ = draw(TESTS, seed + 10_000)
    serialiser = serialiser_of(train)
    queries = QueryTransformerConfig(num_queries=QUERIES, width=WIDTH, depth=1, num_heads=4, mlp_dim=2 * WIDTH)
    config = VideoLlamaConfig(
        encoder=encoder_config(FRAMES, size=8 * SIDE),
        connector=VideoQueriesConfig(frames=queries, clip=queries, max_frames=FRAMES, frozen=False),
        decoder=decoder_config(serialiser),
        placeholders=tuple(serialiser.places.values()),
        trains=("connector", "decoder"),
    )
    mean = VideoLanguageConfig(**{**vars(config), "connector": MeanOfFramesConfig()})
    arms = {"times": config, "no times": config, "mean": mean, "blind": replace(config, sees=False)}
    encoder = config.build().encoder
    teach(encoder, train.clips, cells, seed)
    decoder = words(config, serialiser, [train], seed)
    found = {}
    for name, arm in arms.items():
        model = model_of(arm, encoder, decoder, seed)
        if name == "no times":
            nn.init.zeros_(model.connector.time_pos_embed.requires_grad_(False))
        found[name] = right(learn(model, serialiser, [train], STEPS, seed), serialiser, test)[""]
    return found


def draw(count: int, seed: int) -> tuple[Told, np.ndarray]:
    """Videos, two questions about each, and their cells."""
    rng = np.random.default_rng((seed, 0))
    colours = np.stack([rng.permutation(len(COLOUR))[:FRAMES] for _ in range(count)])
    cells = np.tile(colours[:, :, None, None], (SIDE, SIDE))
    asked = [
        Asked(i, when, f"what comes {when}?", COLOUR[row[at]])
        for i, row in enumerate(colours)
        for when, at in (("first", 0), ("last", -1))
    ]
    return Told(render(cells, rng), asked), cells
