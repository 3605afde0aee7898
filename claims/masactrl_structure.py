"""An edit that attends to its source's keys and values keeps what it does not change, where words alone do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.edited_scenes import EDITOR_STEPS, Edits, edited, editing_by, rendered, ways
from claims.ledger import Claim, Figure, above, below
from filmstrip.data.edits import MOVING
from filmstrip.evals.frame_metrics import psnr
from filmstrip.protocols import as_float
from filmstrip.systems.editing.masactrl import MasaCtrl

TESTS = 24
GUIDANCE = {"text": 2.0}
NEVER = 99
"""A number of a transformer that no network here has."""
METHODS = {
    "plain": {"first_layer": NEVER},
    "masactrl": {},
    "time": {"reads": ("self", "time")},
}
SAYS = {"plain": "words alone", "masactrl": "MasaCtrl", "time": "MasaCtrl, over time too"}

CLAIM = Claim(
    systems=("editing.masactrl",),
    finding=__doc__.strip(),
    paper="Cao et al. 2023 (figures, of images): the layout follows the new words, and what is seen stays the "
    "source's. Yan et al. 2023: of video only attention within frames may read from the source; over time it "
    "breaks.",
    here="editing.masactrl by the network of editing.moca:scenes on the frames of tokenizers.vae_kl:scenes, "
    f"{EDITOR_STEPS} steps (edited_scenes), told of the text alone. 24 unseen scenes whose shape is to move "
    "another way, guidance 2, ten steps. PSNR to the source outside of the edited region, which is where the "
    "true edit shows another pixel; PSNR to the true edit; and how many shapes move as asked, by the nearest of "
    "the scene's four videos.",
    baseline="Words alone: the same network from the same noise, which the source was inverted to, under the "
    "same new text and guidance, and nothing that is read.",
    figures={
        key: figure
        for name, says in SAYS.items()
        for key, figure in (
            (f"outside {name}", Figure(says=f"{says}: PSNR outside of the edit, dB", digits=2)),
            (f"true {name}", Figure(says=f"{says}: PSNR to the true edit, dB", digits=2)),
            (f"way {name}", Figure(says=f"{says}: shapes that move as asked, %")),
        )
    },
    expected=(
        above("outside masactrl", "outside plain", "what is not edited is kept better than by words alone"),
        above("true masactrl", "true plain", "and the edit is nearer to the true one"),
        below("true time", "true masactrl", "reading over time as well is worse"),
    ),
    minutes=27,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    model = editing_by("editing.masactrl", seed)
    assert isinstance(model, MasaCtrl)
    edits = Edits.drawn(MOVING[0], TESTS, 1000 + seed)
    source, true = as_float(rendered(edits.sources)), as_float(rendered(edits.edited))
    found: dict[str, float] = {}
    config = model.config
    for name, changes in METHODS.items():
        model.config = replace(config, **changes)
        made = edited(model, edits, seed, guidance=GUIDANCE)
        right = [way == scene.way for way, scene in zip(ways(made, edits.edited), edits.edited)]
        found[f"outside {name}"] = psnr_where(made, source, source == true).mean().item()
        found[f"true {name}"] = psnr(made, true).mean().item()
        found[f"way {name}"] = 100 * sum(right) / TESTS
    return found


def psnr_where(made: Tensor, source: Tensor, same: Tensor) -> Tensor:
    """PSNR of videos ``N T 3 H W`` over the pixels that are the ``same`` in all colours (bool): ``N``."""
    same = same.all(dim=2, keepdim=True).expand_as(made).float()
    error = ((made - source).square() * same).flatten(1).sum(dim=1) / same.flatten(1).sum(dim=1)
    return -10 * torch.log10(error)
