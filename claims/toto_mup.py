"""In the maximal update parametrisation one learning rate is best for every width; in the standard one it moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from claims.ledger import Claim, Figure, below, equal
from claims.next_codes import Codes, learn, toto

WIDTHS, DEPTH, HEAD = (16, 32, 64, 128), 2, 16
EXPONENTS, STEPS = range(-9, -3), 160
KINDS = {"muP": WIDTHS[0], "standard": None}

CLAIM = Claim(
    systems=("pretraining.toto",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, section on compute-optimal scaling: under muP a rate of 2^-7 is best for every "
    "width (figure 16). The standard parametrisation is Yang et al. 2022's comparison: its best rate falls with the "
    "width (figure 1 there).",
    here="4 x 4 codes of 8 frames of plain moving shapes (mean colours of patches, in 64 levels), Totos of 2 layers, "
    "16 to 128 wide, each with 6 rates from 2^-9 to 2^-4, 160 steps of 16 clips that are never the same, AdamW at a "
    "constant rate. The best rate, as a power of 2, is the vertex of the parabola through the lowest held-out loss "
    "and its neighbours. The cost is that of giving the widest network the best rate of the narrowest.",
    baseline="The same networks in the standard parametrisation: all weights of deviation 0.02, one rate for all.",
    figures={
        **{
            f"{kind} {width}": Figure(
                says=f"{kind}, {width} wide: best rate, power of 2", paper="-7" if kind == "muP" else "", digits=2
            )
            for kind in KINDS
            for width in WIDTHS
        },
        **{f"{kind} loss": Figure(says=f"{kind}, widest: lowest loss, nats a code", digits=3) for kind in KINDS},
        **{
            f"{kind} cost": Figure(says=f"{kind}, widest with the narrowest's best rate: nats a code more", digits=3)
            for kind in KINDS
        },
        "unigram": Figure(says="entropy of single codes, nats", digits=3),
    },
    expected=(
        equal(
            "muP 128",
            "muP 16",
            "muP: the widest network's best rate is the narrowest's, up to a factor of 2",
            within=1,
        ),
        below("standard 128", "standard 16", "standard: it is at most half of the narrowest's", by=1),
        below("muP cost", "standard cost", "the narrowest's rate costs the widest network less under muP"),
        below("muP loss", "unigram", "the widest network has learnt something", by=0.1),
    ),
    analysis="The vertex of the parabola moves by up to two powers of two from one width to the next, in both "
    "parametrisations and without a direction: in these 160 steps and from 16 to 128 wide the loss is so flat "
    "around its lowest that noise chooses the rate. Under muP the narrowest network's rate costs the widest at most "
    "0.07 nats; in the standard parametrisation nothing in two seeds, and 1.07 nats in the third, whose narrowest "
    "learns fastest at the highest rate. muP's networks, whose rates fall with the width, learn less in so few "
    "steps. What muP promises, activations that do not grow with the width, is shown by the coordinate check of the "
    "tests.",
    minutes=19,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    codes = Codes(seed)
    found = {"unigram": codes.unigram()}
    for kind, base in KINDS.items():
        losses = {width: swept(codes, width, base, seed) for width in WIDTHS}
        for width, by_rate in losses.items():
            found[f"{kind} {width}"] = best(by_rate)
        widest, narrowest = losses[WIDTHS[-1]], losses[WIDTHS[0]]
        found[f"{kind} loss"] = min(widest.values())
        transferred = widest[min(narrowest, key=narrowest.__getitem__)]
        if not math.isfinite(transferred):  # training that diverges is as bad as knowing nothing
            transferred = found["unigram"]
        found[f"{kind} cost"] = transferred - found[f"{kind} loss"]
    return found


def swept(codes: Codes, width: int, base: int | None, seed: int) -> dict[int, float]:
    """The held-out loss that each rate leads to, by its power of 2."""
    sizes = {"width": width, "depth": DEPTH, "num_heads": width // HEAD, "mlp_dim": 2 * width}
    found = {}
    for exponent in EXPONENTS:
        network = toto(seed, **sizes, tied=False, base_width=base)
        found[exponent] = learn(network, codes, rate=2.0**exponent, steps=STEPS, measured={STEPS})[STEPS]
    return found


def best(losses: Mapping[int, float]) -> float:
    """The power of 2 at which the parabola through the lowest loss and its neighbours is lowest."""
    lowest = min(losses, key=losses.__getitem__)
    left, middle, right = (losses.get(lowest + step, math.inf) for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    if not math.isfinite(bend) or bend <= 0:  # the lowest is the first or the last
        return float(lowest)
    return lowest + max(-0.5, min(0.5, (left - right) / (2 * bend)))
