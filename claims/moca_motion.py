"""A video model that is told the source's motion keeps it in edits of how things look, and must not be for others."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from claims.edited_scenes import EDITOR_STEPS, Edits, edited, editor, rendered, ways
from claims.ledger import Claim, Figure, above, below
from claims.training import percent
from filmstrip.data.edits import MOVING
from filmstrip.evals.frame_metrics import psnr
from filmstrip.evals.video_edit import flow_error
from filmstrip.protocols import as_float

TESTS = 16
LOOKS = ("style", "background", "object")
SCALES = (0.0, 0.5, 1.0, 2.0)
PLAIN = {"image": 1.0, "text": 1.0}

CLAIM = Claim(
    systems=("editing.moca",),
    finding=__doc__.strip(),
    paper="Yan et al. 2023 (table 7.5): people prefer edits with the motion condition to those without in 58% of "
    "edits of looks; edits of the motion are made without it.",
    here=f"editing.moca:scenes on the frames of tokenizers.vae_kl:scenes, {EDITOR_STEPS} steps (edited_scenes). "
    "Unseen scenes, 16 of each type, with their true edited first frames: the animation is judged alone. Scales "
    "of image and text are 1. Of edits of looks (style, background, object): the error of the flow against the "
    "source's, where that moves, and PSNR to the true edited video beyond its first frame, by the scale of the "
    "motion. Of edits of the motion: how many shapes move the asked way, which is that of the nearest of the "
    "scene's four videos.",
    baseline="The same model with the motion's scale at 0; for PSNR, also the source as it is, and the true "
    "first frame repeated.",
    figures={
        **{f"flow {s:g}": Figure(says=f"looks, scale {s:g}: error of the flow, pixels", digits=3) for s in SCALES},
        **{f"psnr {s:g}": Figure(says=f"looks, scale {s:g}: PSNR, dB", digits=2) for s in (0.0, 1.0)},
        "source": Figure(says="looks, the source as it is: PSNR, dB", digits=2),
        "repeated": Figure(says="looks, the true first frame repeated: PSNR, dB", digits=2),
        "autoencoder": Figure(says="true edits through the autoencoder: PSNR, dB", digits=2),
        "way on": Figure(says="motion, told the source's: shapes that move as asked, %"),
        "way off": Figure(says="motion, not told: shapes that move as asked, %"),
    },
    expected=(
        below("flow 1", "flow 0", "told the source's motion, edits keep it"),
        above("psnr 1", "psnr 0", "and are nearer to the true edits"),
        above("psnr 1", "repeated", "nearer than a still of the true first frame"),
        above("psnr 1", "source", "nearer than the source"),
        below("flow 1", "flow 0.5", "half the scale keeps it less"),
        above("way off", "way on", "edits of the motion need it dropped"),
    ),
    minutes=30,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    model = editor(seed)
    found: dict[str, list[float]] = {}

    def note(name: str, values: Tensor) -> None:
        found.setdefault(name, []).extend(values.tolist())

    for kind in LOOKS:
        edits = Edits.drawn(kind, TESTS, 1000 + seed)
        source, true = as_float(rendered(edits.sources)), as_float(rendered(edits.edited))

        def near(made: Tensor, true: Tensor = true) -> Tensor:
            """PSNR beyond the first frame, which was given."""
            return psnr(made[:, 1:], true[:, 1:]).mean(dim=1)

        for scale in SCALES:
            made = edited(model, edits, seed, true_frames=True, guidance=PLAIN | {"motion": scale})
            note(f"flow {scale:g}", flow_error(made, source))
            if scale in (0.0, 1.0):
                note(f"psnr {scale:g}", near(made))
        note("source", near(source))
        note("repeated", near(true[:, :1].expand_as(true)))
        with torch.no_grad():
            note("autoencoder", near(model.pixels(model.latents(true))))
    edits = Edits.drawn(MOVING[0], 2 * TESTS, 1000 + seed)
    asked = [scene.way for scene in edits.edited]
    for name, told in (("way on", True), ("way off", False)):
        made = edited(
            model, edits, seed, keeps_motion=told, true_frames=True, guidance=PLAIN | {"motion": float(told)}
        )
        right = [way == wanted for way, wanted in zip(ways(made, edits.edited), asked)]
        found[name] = [percent(torch.tensor(right), torch.ones(len(right), dtype=torch.bool))]
    return {name: sum(values) / len(values) for name, values in found.items()}
