"""Conditions that training drops alone and in pairs leave all four calls of guidance usable."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.edited_scenes import EDITOR_STEPS, Edits, batch_of, editor
from claims.ledger import Claim, Figure, below
from filmstrip.inference import inference
from filmstrip.systems.editing.moca import MoCA

TESTS, DRAWS = 48, 4
CALLS = {
    "nothing": (),
    "image": ("image",),
    "image+text": ("image", "text"),
    "all": ("image", "text", "motion"),
}

CLAIM = Claim(
    systems=("editing.moca",),
    finding=__doc__.strip(),
    paper="Yan et al. 2023 (method): each condition and each pair is nulled for a tenth of the examples, motion "
    "for another half; guidance takes four calls of the network. No measurement.",
    here=f"The editor of edited_scenes (editing.moca:scenes, {EDITOR_STEPS} steps) on 48 unseen scenes, each "
    "noised to four random times: the error of the clean latents that follow from what is predicted, in shares "
    "of their variance, by what the call is given. Nothing, image, both with the text, and all: what guidance "
    "calls.",
    baseline="A network whose prediction is zero, as an untrained one's about is: the mean square of the latents, 1.",
    figures={name: Figure(says=f"given {name}: error", digits=3) for name in CALLS},
    expected=(
        below("nothing", 1.0, "the call without conditions is trained", by=0.3),
        below("image", "nothing", "a first frame tells much"),
        below("image+text", "image", "the text tells more"),
        below("all", "image+text", "and the motion more than that"),
    ),
    minutes=23,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    model = editor(seed)
    with inference(model):
        return _errors(model, seed)


def _errors(model: MoCA, seed: int) -> dict[str, float]:
    batch = batch_of(Edits.drawn("object", TESTS, 3000 + seed).sources, seed)
    latents = model.latents(batch["video"])
    known = model.known(batch, latents)
    found = {}
    for name, given in CALLS.items():
        absent = {each: torch.full((TESTS,), each not in given) for each in model.order}
        errors = []
        for draw in range(DRAWS):
            seeds = torch.arange(TESTS) + TESTS * draw
            time = model.diffusion.draw_times(seeds, "moca_nulls.time")
            noise = model.noise(seeds, latents.shape[1], model.latent_size(*batch["video"].shape[-2:]))
            noisy = model.diffusion.noised(latents, noise, time)
            output = model.run(known, noisy, time, absent, None)
            errors.append((model.diffusion.split(noisy, output, time).clean - latents).square().mean())
        found[name] = (sum(errors) / DRAWS / latents.square().mean()).item()
    return found
