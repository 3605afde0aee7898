"""Class tokens of a whole video in front of merged ones help with questions about all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from claims.asked import right
from claims.ledger import Claim, Figure, above
from claims.long_videos import (
    CLASS_LAYERS,
    NAMES,
    SCENE,
    SIDE,
    TEST,
    TONES,
    TRAIN,
    Drawn,
    answering,
    draw,
    reduced,
    segments,
    start,
)

LEFT = 3
"""Tokens that are left of a segment's 288: the share that the paper's 30 are of 2,560."""
WAYS = {
    "local": segments(to=LEFT),
    "global first": segments(to=LEFT, class_layers=CLASS_LAYERS),
    "global last": segments(to=LEFT, class_layers=CLASS_LAYERS, last=True),
}
SAYS = {
    "local": "merged tokens alone",
    "global first": "class tokens of two layers in front of them",
    "global last": "class tokens of two layers behind them",
}
KINDS = ("most", "odd")
FAVOURED = 0.65
"""Share of the scenes in which the same of a video's two tones covers more than the other."""

CLAIM = Claim(
    systems=("language.longvlm",),
    finding=__doc__.strip(),
    paper="Weng et al. 2024, LongVLM: of Video-ChatGPT's questions, judged by GPT from 0 to 5, merging alone has a "
    "mean of 2.72, with class tokens behind 2.82, with them in front 2.89.",
    here="64 frames show scenes of 8 frames; every scene has the same two tones of ground, one of them on two thirds "
    f"of it or more. Which is seen most in all? And what colour is the odd square? Merging leaves {LEFT} tokens of a "
    "segment's 288. Otherwise as in longvlm_merging; each model learns both questions.",
    baseline="The same without class tokens.",
    figures={
        f"{name}, {kind}": Figure(says=f"{said}, {'ground' if kind == 'most' else 'square'}: right answers, %")
        for name, said in SAYS.items()
        for kind in KINDS
    },
    expected=(
        above("global first, most", "local, most", "class tokens help with the whole video's ground"),
        above("global first, most", "global last, most", "at most 5 points less in front than behind", by=-5.0),
        above("global first, odd", "local, odd", "and cost at most 5 points of the square's colour", by=-5.0),
    ),
    analysis="Class tokens add 4, 0 and 2 points in front and 7, 2 and -2 behind: the direction of the paper, whose "
    "own gain is of that size (0.17 of 5), and too little for three seeds. Even three tokens of a segment tell how "
    "much of either ground it has, since more of the tokens that are left are of the larger one. The square's colour "
    "stays at chance (17%) in all three, since one layer learns both questions.",
    minutes=8,
)


def balanced(drawn: Drawn, seed: int) -> Drawn:
    """The videos with both of two tones in every scene, so that only how much is seen of them tells which is more."""
    rng, cells, asked = np.random.default_rng((seed, 4)), drawn.cells.copy(), []
    scenes = -(-cells.shape[1] // SCENE) + 1
    for video, questions in zip(cells, zip(*[iter(drawn.asked)] * len(KINDS))):
        pair = rng.permutation(len(TONES))[:2]
        major = pair[(rng.random(scenes) > FAVOURED).astype(int)]
        of_frame = (np.arange(len(video)) + int(rng.integers(SCENE))) // SCENE
        few = np.arange(SIDE) < rng.integers(1, SIDE // 2, size=scenes)[of_frame, None]
        tones = np.where(few, (pair.sum() - major)[of_frame, None], major[of_frame, None])
        ground = video >= len(NAMES)
        video[ground] = len(NAMES) + np.broadcast_to(tones[:, None], video.shape)[ground]
        most = tuple(TONES)[np.bincount(video[ground] - len(NAMES)).argmax()]
        asked += [each._replace(answer=most) if each.kind == "most" else each for each in questions]
    return Drawn(cells, asked)


def measure(seed: int, folder: Path) -> dict[str, float]:
    begun = start(KINDS, seed)
    train, test = (balanced(draw(count, 64, KINDS, seed + add), seed + add) for count, add in ((TRAIN, 2), (TEST, 3)))
    told, asked = reduced(begun.encoder, train, WAYS, seed + 2), reduced(begun.encoder, test, WAYS, seed + 3)
    found = {}
    for name in WAYS:
        said = right(answering(begun, told[name], seed), begun.serialiser, asked[name])
        found |= {f"{name}, {kind}": said[kind] for kind in KINDS}
    return found
