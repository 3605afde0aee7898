"""A fifth of a clip's tokens, aligned with two teachers' features, teach more than masked pixels do."""

from __future__ import annotations

from pathlib import Path

from claims.ledger import Claim, Figure, above
from claims.squares import BATCH, LABELLED, STEPS, TESTS, WHATS, probe_sets, probed, student, untrained

SAYS = {
    "first": "first weights",
    "aligned": "visible tokens aligned",
    "both": "masked features predicted (MVD)",
    "pixels": "masked pixels predicted",
}

CLAIM = Claim(
    systems=("pretraining.internvideo2",),
    finding=__doc__.strip(),
    paper="Wang et al. 2024 (code): the first stage aligns unmasked tokens with an image and a video teacher, after "
    "Unmasked Teacher, where it replaces the reconstruction of pixels. The text states no comparison.",
    here="A square of one of four patterns moves in one of four ways (8 frames of 32 x 32). Labels have taught an "
    "image network its pattern and a video network its way. Students of one size learn without labels for "
    f"{STEPS} steps of {BATCH} clips: a fifth of the tokens, those that the image teacher attends to, aligned with "
    "both teachers; both teachers' features, or pixels, predicted at three tubelets in four. Linear probes of the "
    f"mean token are fitted to {LABELLED} other clips and tested on {TESTS}, chance 25.",
    baseline="Masked pixels, masked features, the student's first weights.",
    figures={
        f"{name} {what}": Figure(says=f"{says}: {what}, linear probe, top-1, %")
        for name, says in SAYS.items()
        for what in WHATS
    },
    expected=(
        above("aligned way", "pixels way", "aligned tokens know more of motion than pixels teach"),
        above("aligned pattern", "pixels pattern", "and more of appearance"),
        above("aligned way", "first way", "alignment teaches motion"),
    ),
    minutes=5,
    analysis="Aligned tokens know the pattern better than predicted pixels or features do, but nothing of ways: "
    "a student that only ever sees a fifth of the tokens, each aligned with what the teachers make of "
    "that place, tells no motion after 200 steps, whereas students that predict masked places must.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    sets = probe_sets(seed)
    found = {}
    for name in SAYS:
        encoder = (untrained("aligned", seed) if name == "first" else student(name, seed)).encoder
        found |= {f"{name} {what}": probed(encoder, sets, what) for what in WHATS}
    return found
