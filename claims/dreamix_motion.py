"""The longer a network of video is tuned on a video, the less its edits follow words that ask for another motion."""

from __future__ import annotations

from pathlib import Path

from claims.edited_scenes import EDITOR_STEPS, Edits, edited, editing_by, rendered
from claims.ledger import Claim, Figure, above, below
from filmstrip.data.edits import MOVING, FrameEditing
from filmstrip.evals.frame_metrics import psnr
from filmstrip.objectives.film_tuning import Tuning
from filmstrip.protocols import as_float

TESTS = 5
TUNED, RATE = (0, 20, 80), 1e-3
STRENGTH = 0.9

CLAIM = Claim(
    systems=("editing.dreamix",),
    finding=__doc__.strip(),
    paper="Molad et al. 2023: a network that is tuned on a clip alone learns its motion by heart, so frames "
    "without their order are learnt as well. Yan et al. 2023 (table 7.2): people prefer MoCA to Dreamix in 81% "
    "of edits of motion, in 63% of all.",
    here=f"editing.dreamix by the network of editing.moca:scenes, {EDITOR_STEPS} steps (edited_scenes), told of "
    f"the text alone. 5 unseen scenes whose shape is to move another way, noise {STRENGTH:g}, guidance 2, by how "
    "long the network was tuned on the scene: PSNR to the true edit, and to the source, both beyond the first "
    "frame. What counts is their difference, the nearness to the asked motion: both videos show the same first "
    "frame.",
    baseline="The same network without tuning.",
    figures={
        **{f"true {n}": Figure(says=f"{n} steps: PSNR to the true edit, dB", digits=2) for n in TUNED},
        **{f"source {n}": Figure(says=f"{n} steps: PSNR to the source, dB", digits=2) for n in TUNED},
        **{f"asked {n}": Figure(says=f"{n} steps: the first less the second, dB", digits=2) for n in TUNED},
    },
    expected=(
        below(f"asked {TUNED[-1]}", f"asked {TUNED[0]}", "tuning takes an edit away from the asked motion"),
        below(f"asked {TUNED[-1]}", f"asked {TUNED[1]}", "the longer the more"),
        above(f"source {TUNED[-1]}", f"source {TUNED[0]}", "it comes nearer to the source"),
    ),
    minutes=30,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    model = editing_by("editing.dreamix", seed)
    edits = Edits.drawn(MOVING[0], TESTS, 1000 + seed)
    source, true = as_float(rendered(edits.sources)), as_float(rendered(edits.edited))
    found = {}
    for steps in TUNED:
        made = edited(
            model,
            edits,
            seed,
            guidance={"text": 2.0},
            frame_editing=FrameEditing(strength=STRENGTH),
            tuning=Tuning(steps=steps, lr=RATE),
        )
        for name, other in (("true", true), ("source", source)):
            found[f"{name} {steps}"] = psnr(made[:, 1:], other[:, 1:]).mean().item()
        found[f"asked {steps}"] = found[f"true {steps}"] - found[f"source {steps}"]
    return found
