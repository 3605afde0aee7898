"""Edits that are made in the depths of their source keep its motion, and so cannot change it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from claims.edited_scenes import Edits, depths, edited, rendered, trained, ways
from claims.ledger import Claim, Figure, above, below
from claims.training import percent
from filmstrip import systems
from filmstrip.evals.frame_metrics import psnr
from filmstrip.evals.video_edit import flow_error
from filmstrip.protocols import as_float

STEPS, RATE, TESTS = 300, 2e-3, 24
LOOKS = ("style", "background", "object")

CLAIM = Claim(
    systems=("editing.depth_control",),
    finding=__doc__.strip(),
    paper="Yan et al. 2023 (table 7.2): beside Gen-1, which edits by depth, people prefer MoCA in 40% of the edits "
    "of grounds and in 99% of those of the motion; in 66% and 80% of those of styles and objects.",
    here="editing.depth_control:scenes on the frames of tokenizers.vae_kl:scenes, 300 steps of 8 clips of 32 x 32 "
    "pixels with their true depth, text scale 2. Unseen scenes, 24 of each type. Of edits of looks (style, "
    "background, object): the error of the flow against the source's, where that moves, and PSNR to the true edited "
    "video. Of edits of the motion: how many shapes move the asked way, which is that of the nearest of the scene's "
    "four videos, and how many the source's.",
    baseline="The same model with the depth's scale at 0: text alone.",
    figures={
        **{
            f"flow {name}": Figure(says=f"looks, {words}: error of the flow, pixels", digits=3)
            for name, words in (("on", "in the source's depths"), ("off", "by text alone"))
        },
        **{
            f"psnr {name}": Figure(says=f"looks, {words}: PSNR, dB", digits=2)
            for name, words in (("on", "in the source's depths"), ("off", "by text alone"))
        },
        "as asked": Figure(says="motion, in the source's depths: shapes that move as asked, %"),
        "as before": Figure(says="motion, in the source's depths: shapes that move as the source's, %"),
    },
    expected=(
        below("flow on", "flow off", "in the source's depths, edits move as it does"),
        above("psnr on", "psnr off", "and are nearer to the true edits"),
        above("as before", "as asked", "edits of the motion leave it as it was", by=20),
    ),
    minutes=14,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    config = systems.find("editing.depth_control:scenes").objective
    model = trained(config, seed, steps=STEPS, lr=RATE)
    found: dict[str, list[float]] = {}

    def note(name: str, values: Tensor) -> None:
        found.setdefault(name, []).extend(values.tolist())

    for kind in LOOKS:
        edits = Edits.drawn(kind, TESTS, 1000 + seed)
        source, true = as_float(rendered(edits.sources)), as_float(rendered(edits.edited))
        for name, scale in (("on", 1.0), ("off", 0.0)):
            made = edited(model, edits, seed, depth=depths(edits.sources), guidance={"text": 2.0, "depth": scale})
            note(f"flow {name}", flow_error(made, source))
            note(f"psnr {name}", psnr(made, true).mean(dim=1))
    edits = Edits.drawn("motion", 2 * TESTS, 1000 + seed)
    made = edited(model, edits, seed, depth=depths(edits.sources), guidance={"text": 2.0, "depth": 1.0})
    moves = ways(made, edits.edited)
    for name, scenes in (("as asked", edits.edited), ("as before", edits.sources)):
        right = torch.tensor([way == scene.way for way, scene in zip(moves, scenes)])
        found[name] = [percent(right, torch.ones_like(right))]
    return {name: sum(values) / len(values) for name, values in found.items()}
