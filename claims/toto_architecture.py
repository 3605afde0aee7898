"""Of equal size, LLaMA's blocks learn better features from the next token than GPT-2's, and these than Mamba's."""

from __future__ import annotations

from pathlib import Path

from claims.ledger import Claim, Figure, above
from claims.next_codes import CLIPS, Codes, ids_of, learn, toto
from claims.probed import LABELLED, TESTS, best_layer

STEPS, RATE = 250, 3e-3
LLAMA = {"width": 48, "depth": 4, "num_heads": 2, "mlp_dim": 144}
NETWORKS = {
    "llama": ("LLaMA, rotary positions", LLAMA),
    "sincos": ("LLaMA, added sines and cosines", {**LLAMA, "positions": "sincos"}),
    "gpt2": ("GPT-2, added sines and cosines", {**LLAMA, "mlp_dim": 216, "network": "gpt2", "positions": "sincos"}),
    "mamba": ("Mamba", {"width": 48, "depth": 7, "network": "mamba"}),
}
"""Blocks of 120 to 136 thousand parameters."""

CLAIM = Claim(
    systems=("pretraining.toto",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, ImageNet, linear probe: LLaMA (280 M) 53.2, GPT-2 (280 M) 48.5, Mamba (290 M) "
    "40.7. They credit relative positions; blocks differ as well.",
    here=f"Ids of {8 * CLIPS} plain motions (8 frames of 4 x 4 codes, 64 different ones), shifted by chance. Four "
    f"networks of one size (0.12 to 0.14 M) learn the next code for {STEPS} steps of 16 clips at a rate of {RATE}; "
    f"one of them is LLaMA's with GPT-2's positions. Probes of every layer learn from {8 * LABELLED} labelled clips; "
    f"the best layer's top-1 on {8 * TESTS} unseen ones, chance 12.5.",
    baseline="GPT-2 and Mamba of the same size.",
    figures={
        key: figure
        for name, (says, _) in NETWORKS.items()
        for key, figure in (
            (f"{name}, linear", Figure(says=f"{says}: linear probe of the mean, top-1, %")),
            (f"{name}, attention", Figure(says=f"{says}: attention probe, top-1, %")),
            (f"{name}, nats", Figure(says=f"{says}: held-out loss, nats a code", digits=3)),
        )
    },
    expected=(
        above("llama, linear", "gpt2, linear", "LLaMA above GPT-2"),
        above("gpt2, linear", "mamba, linear", "GPT-2 above Mamba"),
        above("llama, linear", "sincos, linear", "rotary positions alone are worth something"),
    ),
    minutes=10,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    codes, found = Codes(seed), {}
    for name, (_, sizes) in NETWORKS.items():
        network = toto(seed, **sizes)
        found[f"{name}, nats"] = learn(network, codes, rate=RATE, steps=STEPS, measured=(STEPS,))[STEPS]
        network.eval()
        linear, attention = best_layer(lambda v, n=network: n.loss_and_layers({"tokens": ids_of(v)})[1], seed)
        found[f"{name}, linear"], found[f"{name}, attention"] = linear, attention
    return found
