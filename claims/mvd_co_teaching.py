"""A teacher of images brings appearance, one of videos motion, and a student of both knows both."""

from __future__ import annotations

from pathlib import Path

from claims.ledger import Claim, Figure, above
from claims.squares import BATCH, LABELLED, STEPS, TESTS, WHATS, probe_sets, probed, student, untrained

TEACHERS = ("image", "video", "both")

CLAIM = Claim(
    systems=("pretraining.mvd",),
    finding=__doc__.strip(),
    paper="Wang et al. 2023, ViT-S on Kinetics-400 and Something-Something V2: image teacher 80.4 and 69.4, video "
    "teacher 80.1 and 70.0, both 80.6 and 70.7; ViT-B 82.3 and 71.4, 82.1 and 71.8, 82.7 and 72.5.",
    here="A square of one of four patterns moves in one of four ways (8 frames of 32 x 32). Labels have taught an "
    "image network its pattern and a video network its way: the paper's teachers taught themselves. Students predict "
    f"their features at three tubelets in four, masked at random, in {STEPS} steps of {BATCH} clips without labels. "
    f"Linear probes of the mean token are fitted to {LABELLED} other clips and tested on {TESTS}, chance 25.",
    baseline="Each teacher alone; the student's first weights.",
    figures={
        f"{name} {what}": Figure(says=f"{says}: {what}, linear probe, top-1, %")
        for name, says in {
            "first": "first weights",
            "image": "image teacher",
            "video": "video teacher",
            "both": "both teachers",
        }.items()
        for what in WHATS
    }
    | {f"{name} mean": Figure(says=f"{name}: mean of pattern and way, %") for name in TEACHERS},
    expected=(
        above("both mean", "image mean", "both teach more than the image teacher, on average"),
        above("video way", "image way", "the video teacher's student knows more of motion"),
        above("image pattern", "video pattern", "the image teacher's more of appearance"),
        above("both mean", "video mean", "and more than the video teacher"),
        above("both way", "first way", "the student of both has learnt motion, by 10 points", by=10.0),
    ),
    minutes=5,
    analysis="Three seeds leave every difference within its interval. The means have the order of the finding in "
    "part: of motion the video teacher's student knows most, and that of both more than the image "
    "teacher's; of appearance all students know less than their first weights tell a probe, so that 200 "
    "steps do not show what an image teacher brings.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    sets = probe_sets(seed)
    first = untrained("both", seed).encoder
    found = {f"first {what}": probed(first, sets, what) for what in WHATS}
    for name in TEACHERS:
        encoder = student(name, seed).encoder
        found |= {f"{name} {what}": probed(encoder, sets, what) for what in WHATS}
        found[f"{name} mean"] = sum(found[f"{name} {what}"] for what in WHATS) / 2
    return found
