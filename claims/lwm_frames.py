"""A question about one moment of a video is answered from all of its frames, and not from eight of them."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above
from claims.streams import ANSWER, BACKGROUND, CODES, COLOUR, END, KINDS, QUESTION, START, batch_of, new_model, video
from claims.streams import train as learn
from filmstrip.protocols import Batch

SIDE, PER_FRAME = 2, 4
LENGTHS = (16, 64)
FEW = 8
STEPS, BATCH, ASKED = 400, 16, 400

CLAIM = Claim(
    systems=("language.lwm",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024, figure on an hour of video: questions about single moments, which Video-LLaVA, that sees "
    "8 frames, fails. Shown by examples, without numbers.",
    here="Videos of 16 and of 64 frames of 2 x 2 codes, any of 8 in each cell; one frame is all of one of 8 other "
    "codes. The question stands before the video, and the answer names that code. 2 layers, 64 wide, 400 steps of 16 "
    "videos; 400 new videos are asked about.",
    baseline="The same model and steps with 8 frames, evenly over the video. They hold the frame in 50% and 12.5% of "
    "videos: with chance otherwise (12.5%), 56% and 23% are right at best.",
    figures={
        f"{arm} {length}": Figure(says=f"{length} frames, {seen}: right answers, %")
        for length in LENGTHS
        for arm, seen in (("all", "all seen"), ("few", "8 seen"))
    },
    expected=(
        above("all 16", "few 16", "all frames answer more than 8 of 16", by=20),
        above("all 64", "few 64", "all frames answer more than 8 of 64", by=40),
        above("few 16", "few 64", "8 frames tell less of a longer video", by=15),
    ),
    minutes=6,
)


def questions(generator: torch.Generator, count: int, length: int, few: bool) -> tuple[Batch, torch.Tensor]:
    """Videos with a question each, and its answer ``B``; the answer is learnt."""
    answer = torch.randint(KINDS, (count,), generator=generator)
    codes = torch.randint(BACKGROUND, CODES, (count, length, PER_FRAME), generator=generator)
    at = torch.randint(length, (count,), generator=generator)
    codes[torch.arange(count), at] = answer[:, None]
    if few:
        codes = codes[:, torch.linspace(0, length - 1, FEW).long()]
    rows = [([START, QUESTION, *video(), ANSWER, COLOUR + int(own), END], 8) for own in answer]
    return batch_of(rows, list(codes), PER_FRAME), answer


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = {}
    for length in LENGTHS:
        for arm, few in (("all", False), ("few", True)):
            model = new_model(seed, SIDE)
            learn(
                model, lambda g, n=length, f=few: questions(g, BATCH, n, f)[0], steps=STEPS, seed=seed
            )  # the same videos in both arms
            asked, answer = questions(torch.Generator().manual_seed(10_000 + seed), ASKED, length, few)
            prompt = {"text": asked["text"][:, :8], "text_length": torch.full((ASKED,), 8)}
            said = next(model.answer(model.watch(asked), prompt, count=1))
            found[f"{arm} {length}"] = 100 * float((said == COLOUR + answer).float().mean())
    return found
