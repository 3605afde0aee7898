"""A teacher's features are better targets of masked prediction than pixels, and its student needs no labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above
from claims.taught import SIZES, STEPS, TEACHER, TEACHER_STEPS, drawn, probed, student, teacher
from filmstrip.systems.pretraining import mvd, videomae

CLAIM = Claim(
    systems=("pretraining.mvd",),
    finding=__doc__.strip(),
    paper="Wang et al. 2023, fine-tuned on Kinetics-400 and Something-Something V2: ViT-B from two teachers of its "
    "size 82.7 and 72.5, VideoMAE, which predicts pixels, 81.5 and 69.7 after four times the epochs.",
    here="The teacher is a ViT that labels taught eight plain motions (8 frames of 32 x 32) for "
    f"{TEACHER_STEPS} steps of 16 clips: the paper's taught themselves, which takes longer than minutes. Students of "
    f"the same size see the same videos for {STEPS} steps, nine tubelets in ten masked, without labels. A linear "
    "probe of the mean token is fitted to 20 other videos of each motion and tested on 400 more, chance 12.5.",
    baseline="Pixels as targets, for as many steps; the student's first weights.",
    figures={
        "teacher": Figure(says="teacher: linear probe, top-1, %"),
        "first": Figure(says="first weights: linear probe, top-1, %"),
        "pixels": Figure(says="pixels as targets: linear probe, top-1, %", paper="81.5 (K400, fine-tuned)"),
        "features": Figure(says="a teacher's features as targets: linear probe, top-1, %", paper="82.7 (K400)"),
    },
    expected=(
        above("features", "pixels", "features are better targets than pixels"),
        above("features", "first", "features teach something"),
    ),
    minutes=6,
    analysis="Two of three students of features leave chance far behind; the third stays at chance after these "
    "steps, as students of pixels do. More seeds or steps would be needed to have it outside its interval.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    sets = drawn(seed)
    taught = teacher(sets, seed)
    torch.manual_seed(seed)
    shape = {**SIZES, "decoder_width": 48, "decoder_depth": 2, "mask_ratio": 0.9}
    config = replace(mvd.tiny().objective, **shape, teachers="video", video_teacher=TEACHER)
    network = config.build()
    network.video_teacher.encoder.load_state_dict(taught.encoder.state_dict())
    found = {"teacher": probed(taught.encoder, sets), "first": probed(network.encoder, sets)}
    found["features"] = probed(student(network, sets, seed).encoder, sets)
    torch.manual_seed(seed)
    pixels = replace(videomae.tiny().objective, **shape).build()
    return found | {"pixels": probed(student(pixels, sets, seed).encoder, sets)}
