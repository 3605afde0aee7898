"""Told a larger mean magnitude beside the same picture of the flow, an animated frame moves faster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.edited_scenes import EDITOR_STEPS, Edits, editor, from_first_frame, rendered
from claims.ledger import Claim, Figure, above, below
from filmstrip.data.synthetic.edits import Scene
from filmstrip.protocols import as_float

TESTS = 24
SLOW, FAST = 0.4, 1.0
SPEEDS = tuple(i / 10 for i in range(15))
"""Speeds of which a result has the nearest."""

CLAIM = Claim(
    systems=("editing.moca",),
    finding=__doc__.strip(),
    paper="Yan et al. 2023 (method): pictures of flow are normalised, so the mean magnitude is given like the "
    "diffusion's time; what it does is not measured.",
    here=f"The editor of edited_scenes (editing.moca:scenes, {EDITOR_STEPS} steps) animates the first frames of "
    "24 unseen scenes, whose captions do not name speeds, by the flow of the scene at a middle speed. The same "
    "picture is told with the mean magnitude of the slow scene (0.4), of the fast one (1.0), or with none, which "
    "is the vector of dropped motion. A result has the speed of that scene of 15, from 0 to 1.4, that is nearest "
    "to it.",
    baseline="The same editor and picture with the other magnitude. For comparison, without any magnitude, how "
    "much the pictures of the slow and of the fast scene say: they are normalised, but show where things are in "
    "each frame.",
    figures={
        "slow": Figure(says="told the slow magnitude: speed", digits=2),
        "fast": Figure(says="told the fast magnitude: speed", digits=2),
        "told": Figure(says="difference between the two", digits=2),
        "pictures": Figure(says="not told, pictures of the slow and of the fast scene: difference", digits=2),
        "true": Figure(says="scenes themselves: difference", digits=2),
    },
    expected=(
        above("told", 0.0, "the same picture with a larger magnitude moves faster"),
        below("told", "true", "though by less than scenes differ: the picture shows where things are"),
    ),
    minutes=24,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    model = editor(seed)
    scenes = [replace(scene, speed=(SLOW + FAST) / 2) for scene in Edits.drawn("object", TESTS, 2000 + seed).sources]
    slow, fast = ([replace(scene, speed=speed) for scene in scenes] for speed in (SLOW, FAST))
    pictures, _ = model.motion_of(rendered(scenes))

    def speed(pictures: Tensor, magnitude: Tensor | None) -> float:
        made = from_first_frame(model, scenes, seed, pictures=pictures, magnitude=magnitude)
        return sum(speeds(made, scenes)) / len(scenes)

    found = {
        name: speed(pictures, model.motion_of(rendered(each))[1]) for name, each in (("slow", slow), ("fast", fast))
    }
    of_slow, of_fast = (speed(model.motion_of(rendered(each))[0], None) for each in (slow, fast))
    return found | {"told": found["fast"] - found["slow"], "pictures": of_fast - of_slow, "true": FAST - SLOW}


def speeds(videos: Tensor, scenes: list[Scene]) -> list[float]:
    """The speed of each video ``N T 3 H W``: that of the nearest of its scene's at all speeds."""
    of_each = torch.stack([rendered([replace(scene, speed=speed) for speed in SPEEDS]) for scene in scenes])
    errors = (as_float(of_each) - as_float(videos)[:, None]).square().flatten(2).mean(dim=2)
    return [SPEEDS[i] for i in errors.argmin(dim=1).tolist()]
