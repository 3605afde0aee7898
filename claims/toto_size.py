"""Larger next-token learners have better features after the same tokens."""

from __future__ import annotations

from pathlib import Path

from claims.digits import BATCH, LABELLED, MNIST, RATE, STEPS, TESTS, Digits
from claims.ledger import Claim, Figure, above, below

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
    here="Totos of 2, 3 and 4 blocks, 16, 32 and 64 wide (7, 40 and 214 thousand parameters) learn the next of 8 x 8 "
    f"codes of MNIST's digits (four grey levels of squares of 4 pixels): {STEPS} steps of {BATCH} digits, the same "
    f"for all, at a rate of {RATE} at its highest. Probes of every layer learn from {LABELLED} other digits with "
    f"labels; the best layer's top-1 on {TESTS} unseen ones, chance 10.",
    baseline="The next smaller one.",
    figures={
        key: figure
        for name, sizes in SIZES.items()
        for key, figure in (
            (f"{name}, attention", Figure(says=f"width {sizes['width']}: attention probe, top-1, %")),
            (f"{name}, linear", Figure(says=f"width {sizes['width']}: linear probe of the mean, top-1, %")),
            (f"{name}, nats", Figure(says=f"width {sizes['width']}: loss of unseen digits, nats a code", digits=3)),
        )
    },
    expected=(
        above("a3, linear", "a1, linear", "the largest above the smallest"),
        above("a2, linear", "a1, linear", "the middle one above the smallest"),
        above("a3, linear", "a2, linear", "the largest above the middle one"),
        above("a3, attention", "a1, attention", "the largest above the smallest, by attention"),
        below("a3, nats", "a1, nats", "and predicts better"),
    ),
    analysis="Every step in size is worth 2 to 15 points by logistic regression, in every seed, and the loss falls "
    "with it; three seeds leave the step from the middle to the largest within the noise. Attention, fitted "
    "to 300 digits, overfits and stays below the mean. An earlier form asked for the motions of clips and "
    "found all sizes at chance: mean colours of squares of 8 pixels hardly tell motions.",
    minutes=7,
    needs=(MNIST,),
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    digits, found = Digits(seed), {}
    for name, sizes in SIZES.items():
        network = digits.learner(**sizes)
        found[f"{name}, nats"] = digits.nats(network)
        found[f"{name}, linear"], found[f"{name}, attention"] = digits.probes(network)
    return found
