"""Predicting codes from codes makes features as good as patches from patches, and codes from patches worse ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above
from claims.next_codes import CLIPS, FRAMES, PATCH, SIZE, Codes, ids_of, toto
from claims.probed import LABELLED, TESTS, best_layer
from claims.training import learn
from filmstrip.objectives.latent import CodedVideo
from filmstrip.protocols import Objective, as_float
from filmstrip.systems import find
from filmstrip.systems.pretraining.toto import TotoPatches

STEPS, BATCH, RATE = 250, 16, 3e-3
SIZES = {"width": 48, "depth": 3, "num_heads": 2, "mlp_dim": 144}
KINDS = {"codes": "codes to codes", "patches": "patches to patches", "mixed": "patches to codes"}

CLAIM = Claim(
    systems=("pretraining.toto",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, ImageNet, linear probe, 256 tokens a frame: codes (dVAE) 61.2, normalised "
    "patches 60.6, codes from patches 58.5.",
    here=f"One transformer (48 wide, 3 deep) on {8 * CLIPS} plain motions, 8 frames of 4 x 4 squares of 8 pixels, "
    f"shifted by chance: it sees the mean colour of each square in 64 levels as a code and predicts the next code; "
    f"it sees the pixels and predicts the next square's, normalised; it sees the pixels and predicts the code. "
    f"{STEPS} steps of {BATCH} clips. Probes of every layer learn from {8 * LABELLED} labelled clips; the best "
    f"layer's top-1 on {8 * TESTS} unseen ones, chance 12.5.",
    baseline="The other two.",
    figures={
        key: figure
        for name, says in KINDS.items()
        for key, figure in (
            (f"{name}, linear", Figure(says=f"{says}: linear probe of the mean, top-1, %")),
            (f"{name}, attention", Figure(says=f"{says}: attention probe, top-1, %")),
        )
    },
    expected=(
        above("codes, linear", "mixed, linear", "codes from codes above codes from patches"),
        above("patches, linear", "mixed, linear", "patches from patches above codes from patches"),
        above("codes, linear", "patches, linear", "codes from codes no worse than patches from patches", by=-2.0),
    ),
    minutes=3,
)


class PatchesToLevels(TotoPatches):
    """Whose codes are those of :func:`~claims.next_codes.ids_of`."""

    def _codes(self, coder: CodedVideo, video: Tensor) -> Tensor:
        return ids_of(video * 255)


def measure(seed: int, folder: Path) -> dict[str, float]:
    codes, found = Codes(seed), {}
    for name in KINDS:
        network = built(name, seed)
        order = torch.Generator().manual_seed(seed)

        def draw(name: str = name, order: torch.Generator = order) -> dict[str, Tensor]:
            chosen = torch.randint(len(codes.videos), (BATCH,), generator=order)
            shifts = torch.randint(SIZE, (BATCH, 2), generator=order).tolist()
            video = torch.stack([codes.videos[i].roll(by, dims=(2, 3)) for i, by in zip(chosen.tolist(), shifts)])
            return batch_of(name, video)

        learn(network, draw, steps=STEPS, lr=RATE, weight_decay=0.0, warmup=max(0.1, 2 / STEPS), clip_grad=1.0)
        linear, attention = best_layer(
            lambda v, name=name, network=network: network.loss_and_layers(batch_of(name, v))[1], seed
        )
        found[f"{name}, linear"], found[f"{name}, attention"] = linear, attention
    return found


def batch_of(name: str, video: Tensor) -> dict[str, Tensor]:
    """Clips ``N T 3 H W`` uint8 as codes or as pixels."""
    return {"tokens": ids_of(video)} if name == "codes" else {"video": as_float(video)}


def built(name: str, seed: int) -> Objective:
    """The transformer with fresh weights, and what it sees and predicts."""
    if name == "codes":
        return toto(seed, **SIZES)
    torch.manual_seed(seed)
    preset = "tiny_patches" if name == "patches" else "tiny_patches_to_codes"
    config = replace(
        find(f"pretraining.toto:{preset}").objective, num_frames=FRAMES, size=SIZE, patch_size=PATCH, **SIZES
    )
    network = config.build()
    return network if name == "patches" else PatchesToLevels(config, network.coder)
