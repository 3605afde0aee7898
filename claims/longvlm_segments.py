"""Segments keep the order of a long video, which merging over all of it loses."""

from __future__ import annotations

from pathlib import Path

from claims.asked import right
from claims.ledger import Claim, Figure, above
from claims.long_videos import LEFT, SEGMENTS, TEST, TRAIN, answering, draw, everything, reduced, segments, start

WAYS = {"segments": segments(), "whole": segments(count=1, to=SEGMENTS * LEFT)}
SAYS = {"segments": "8 tokens of each of 8 segments", "whole": "64 tokens of the whole video"}
KINDS = ("first",)

CLAIM = Claim(
    systems=("language.longvlm",),
    finding=__doc__.strip(),
    paper="Weng et al. 2024, LongVLM: segments are joined in order of time, to keep the story; no figure is given "
    "without them.",
    here="64 frames hold two squares of different colours, each for 2 frames, two cells wide: which comes first? "
    "As in longvlm_merging, in all other ways. Who sees both squares and no order is right in half the cases.",
    baseline="As many tokens, merged over the whole video.",
    figures={name: Figure(says=f"{said}: right answers, %") for name, said in SAYS.items()}
    | {"short": Figure(says="all tokens of two frames: right answers, %")},
    expected=(
        above("segments", "whole", "segments know the order better"),
        above("short", 75.0, "where all begin the question is learnt"),
    ),
    analysis="Nothing is shown of order: with segments 31, 40 and 26% are right, with merging over the whole 35, "
    "27 and 25%. Who sees both squares and not their order answers half, who sees none a sixth: the models find "
    "few of the squares, though these are two cells wide, and what order could add is lost in that. It takes more "
    "steps, or squares that stay longer.",
    minutes=8,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    begun = start(KINDS, seed, width=2)
    short = reduced(begun.encoder, draw(TEST, 2, KINDS, seed + 4, width=2), {"all": everything}, seed + 4)["all"]
    found = {"short": right(begun.model, begun.serialiser, short)[""]}
    train = reduced(begun.encoder, draw(TRAIN, 64, KINDS, seed + 2, width=2), WAYS, seed + 2)
    test = reduced(begun.encoder, draw(TEST, 64, KINDS, seed + 3, width=2), WAYS, seed + 3)
    for name in WAYS:
        found[name] = right(answering(begun, train[name], seed), begun.serialiser, test[name])[""]
    return found
