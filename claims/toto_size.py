"""Larger next-token learners have better features after the same tokens."""

from __future__ import annotations

from pathlib import Path

from claims.ledger import Claim, Figure, above, below
from claims.next_codes import CLIPS, Codes, ids_of, learn, toto
from claims.probed import LABELLED, TESTS, best_layer

STEPS, RATE = 300, 2e-3
SIZES = {
    "a1": {"width": 16, "depth": 2, "num_heads": 1, "mlp_dim": 48},
    "a2": {"width": 32, "depth": 3, "num_heads": 2, "mlp_dim": 96},
    "a3": {"width": 64, "depth": 4, "num_heads": 4, "mlp_dim": 192},
}

CLAIM = Claim(
    systems=("pretraining.toto", "recognition.probe"),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, attention probe, base, large, 1b: ImageNet 64.7, 71.1, 75.3; Kinetics-400 59.3, "
    "65.3, 74.4.",
    here=f"Totos of 2, 3 and 4 blocks, 16, 32 and 64 wide (7, 40 and 214 thousand parameters) learn the next code of "
    f"{8 * CLIPS} plain motions (8 frames of 4 x 4 codes), shifted by chance: {STEPS} steps of 16 clips, the same "
    f"for all, at a rate of {RATE}. Probes of every layer learn from {8 * LABELLED} labelled clips; the best layer's "
    f"top-1 on {8 * TESTS} unseen ones, chance 12.5.",
    baseline="The next smaller one.",
    figures={
        key: figure
        for name, sizes in SIZES.items()
        for key, figure in (
            (f"{name}, attention", Figure(says=f"width {sizes['width']}: attention probe, top-1, %")),
            (f"{name}, linear", Figure(says=f"width {sizes['width']}: linear probe of the mean, top-1, %")),
            (f"{name}, nats", Figure(says=f"width {sizes['width']}: held-out loss, nats a code", digits=3)),
        )
    },
    expected=(
        above("a3, attention", "a1, attention", "the largest above the smallest"),
        above("a2, attention", "a1, attention", "the middle one above the smallest"),
        above("a3, attention", "a2, attention", "the largest above the middle one"),
        below("a3, nats", "a1, nats", "and predicts better"),
    ),
    minutes=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    codes, found = Codes(seed), {}
    for name, sizes in SIZES.items():
        network = toto(seed, **sizes)
        found[f"{name}, nats"] = learn(network, codes, rate=RATE, steps=STEPS, measured=(STEPS,))[STEPS]
        network.eval()
        linear, attention = best_layer(lambda v, n=network: n.loss_and_layers({"tokens": ids_of(v)})[1], seed)
        found[f"{name}, linear"], found[f"{name}, attention"] = linear, attention
    return found
