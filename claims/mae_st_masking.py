"""Masked autoencoding needs no regard of space and time: any tubelets are as good masks as tubes, frames worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above
from claims.videomae_pretraining import KINDS, LABELLED, MASKINGS, PRETRAIN_STEPS, SIZES, TESTS, drawn, pretrained
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.protocols import EncoderModule
from filmstrip.systems.pretraining import mae_st

CONFIG = replace(mae_st.tiny().objective, **SIZES, decoder_width=32, decoder_depth=1, decoder_num_heads=2)
SAYS = {"random": "any tubelets, 90%", "tube": "tubes, 90%", "frame": "time steps, 75%"}

CLAIM = Claim(
    systems=("pretraining.mae_st",),
    finding=__doc__.strip(),
    paper="Feichtenhofer et al. 2022, as we remember it: random masking of 90% in no regard of space and time is "
    "best, a little better than tubes, and clearly better than frames.",
    here="Moving textures of four kinds in much noise (8 frames of 32 x 32), which repeat every 8 pixels, as often "
    f"as tubelets do. Pretraining sees {PRETRAIN_STEPS} batches of 16 clips that are never the same. Of 4 time steps "
    f"3 can be masked. A linear probe of the mean token is fitted to {LABELLED} labelled clips and tested on "
    f"{TESTS}, chance 25.",
    baseline="Tubes, whole time steps, and the network's first weights.",
    figures={"first": Figure(says="first weights: top-1, %")}
    | {name: Figure(says=f"{says}: top-1, %") for name, says in SAYS.items()},
    expected=(
        above("random", "first", "masked autoencoding teaches the textures"),
        above("random", "tube", "any tubelets are as good as tubes, within 3 points", by=-3.0),
        above("random", "frame", "and better than whole time steps"),
    ),
    minutes=2,
    analysis="No way of masking teaches the textures within these steps: all three end within three points of "
    "the first weights (31%). So nothing is said of one against another; as with VideoMAE, hundreds of "
    "steps are too few for pixels (docs/log.md).",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    few, test = (drawn(count, start + seed) for count, start in ((LABELLED, 500), (TESTS, 1000)))
    torch.manual_seed(seed)
    found = {"first": probed(CONFIG.build().encoder, few, test)}
    for name in SAYS:
        network = pretrained(replace(CONFIG, masking=name, mask_ratio=MASKINGS[name]), seed)
        found[name] = probed(network.encoder, few, test)
    return found


@torch.no_grad()
def probed(encoder: EncoderModule, few: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Top-1 of a linear classifier of the mean token, %."""
    encoder.eval()
    vectors = [torch.cat([encoder(part).tokens.mean(dim=1) for part in clips.split(50)]) for clips, _ in (few, test)]
    return 100 * LinearProbe().top1(vectors[0], few[1], vectors[1], test[1], KINDS)
