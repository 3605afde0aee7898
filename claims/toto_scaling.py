"""The loss of predicting video codes falls as a power of the compute that training took."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above, below
from claims.next_codes import BATCH, PER_CLIP, Codes, learn, toto
from filmstrip.measure.complexity import training_multiply_adds
from filmstrip.measure.power_law import Point, envelope, exponent_interval, straight, with_offset

SIZES, UNIT, HEAD = range(1, 7), 16, 16
STEPS, CHECKPOINTS = 200, (100, 130, 160, 200)
RATES, TRIED = tuple(2.0**power for power in (-8, -7, -6, -5)), 200
LEARNT = 0.01
"""Nats below the entropy of single codes from which on a network has learnt something."""

CLAIM = Claim(
    systems=("pretraining.toto",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, section on compute-optimal scaling: six sizes in muP, VQGAN codes of images and "
    "videos, validation loss L(C) = 7.42 C^-0.0386. The unit of C cannot be multiply-adds, as the caption says: "
    "exponents can be compared in size, factors not at all. GPT-3's text falls as C^-0.048.",
    here="4 x 4 codes of 8 frames of plain moving shapes (mean colours of patches, 64 levels); six Totos in muP, 16i "
    "wide with i layers, i heads, 200 steps of 16 clips that are never the same, at the constant rate that was "
    "the best of four for the smallest; four measurements of each on held-out clips. Compute is counted, forward and "
    "backward. The lower envelope of all measurements below the entropy of single codes is fitted in log-log, with a "
    "bootstrap over sizes.",
    baseline="No change with compute; the entropy of single codes; the smallest network.",
    figures={
        "exponent": Figure(says="exponent of the power law", paper="0.0386", digits=4),
        "low": Figure(says="its 95% bootstrap interval: from", digits=4),
        "high": Figure(says="to", digits=4),
        "r2": Figure(says="R² in log-log", digits=3),
        "factor": Figure(says="factor, nats, of multiply-adds", paper="7.42, another unit", digits=2),
        "offset": Figure(says="a of a + b C^-c, nats", digits=3),
        "offset exponent": Figure(says="c of a + b C^-c", digits=4),
        "offset r2": Figure(says="R² of a + b C^-c", digits=3),
        "points": Figure(says="measurements on the envelope", digits=0),
        "sizes": Figure(says="sizes on the envelope", digits=0),
        **{f"loss {i}": Figure(says=f"size {i}: loss at the end, nats a code", digits=3) for i in SIZES},
        "unigram": Figure(says="entropy of single codes, nats", digits=3),
        "rate": Figure(says="learning rate", digits=5),
    },
    expected=(
        above("low", 0.0, "the whole interval of the exponent is above zero"),
        above("r2", 0.8, "a straight line in log-log explains at least 80% of the envelope"),
        below("loss 6", "loss 1", "the largest network ends below the smallest"),
        below("loss 1", "unigram", "the smallest has learnt something"),
    ),
    analysis="The exponent, 0.14, 0.19 and 0.18, is above zero in each seed. The envelope is made up of the two "
    "to four smallest sizes: after 200 steps the larger ones, which are deeper too and have the smallest's rate "
    "(muP covers width alone), have not overtaken them, so that the largest does not end lowest and the offset of "
    "a + b C^-c is not determined.",
    minutes=5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    codes = Codes(seed)
    unigram = codes.unigram()

    def tried(rate: float) -> float:
        return learn(sized(1, seed), codes, rate=rate, steps=TRIED, measured={TRIED})[TRIED]

    rate = min(RATES, key=tried)
    found, points = {"unigram": unigram, "rate": rate}, []
    for i in SIZES:
        losses = learn(sized(i, seed), codes, rate=rate, steps=STEPS, measured=CHECKPOINTS)
        each = cost(i) * BATCH
        points += [Point(i, each * step, loss) for step, loss in losses.items() if loss < unigram - LEARNT]
        found[f"loss {i}"] = losses[STEPS]
    front = envelope(points)
    law, offset = straight(front), with_offset(front)
    low, high = exponent_interval(points, seed=seed) or (float("-inf"), float("inf"))
    return found | {
        "exponent": law.exponent,
        "low": low,
        "high": high,
        "r2": law.r2,
        "factor": law.factor,
        "offset": offset.offset,
        "offset exponent": offset.exponent,
        "offset r2": offset.r2,
        "points": len(front),
        "sizes": len({point.size for point in front}),
    }


def sized(i: int, seed: int):
    """A size of the ladder."""
    width = UNIT * i
    sizes = {"width": width, "depth": i, "num_heads": width // HEAD, "mlp_dim": 2 * width}
    return toto(seed, **sizes, tied=False, base_width=UNIT)


def cost(i: int) -> int:
    """Multiply-adds of training on one clip."""
    with torch.device("meta"):
        return training_multiply_adds(sized(i, 0), {"tokens": torch.zeros(1, PER_CLIP, dtype=torch.int64)})
