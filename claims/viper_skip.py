"""Where movements are slow, frames that are farther apart tell an expert from one who stands still."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from claims.expert_films import model_of, played, steps_of
from claims.ledger import Claim, Figure, above
from filmstrip.evals.reward_alignment import auc

NAME, TRAIN, TESTS, START = "reach/right/steel", 40, 12, 16

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: with every frame, arms of RLBench that stand still earn much; every fourth frame "
    "is used (no numbers).",
    here=f"`{NAME}` (an arm with inertia, 32 x 32 pixels): two VideoGPTs of 4 frames learn {TRAIN} episodes of an "
    f"expert of quality 0.9, from frames next to each other and from every fourth. {TESTS} others are compared with "
    f"films that stand still at their first frame, over the {START} first steps, in which the arm leaves its rest.",
    baseline="Windows of frames next to each other.",
    figures={
        "skip 1": Figure(says="area under the curve, expert against standing still, every frame", digits=2),
        "skip 4": Figure(says="the same with every fourth frame", digits=2),
        "margin 1": Figure(says="reward of experts above that of standing still, every frame, nats a code", digits=3),
        "margin 4": Figure(says="the same with every fourth frame", digits=3),
    },
    expected=(
        above("skip 4", "skip 1", "every fourth frame tells more"),
        above("margin 4", "margin 1", "and the margin grows"),
        above("margin 4", 0.0, "with every fourth frame an expert earns more than one who stands still"),
    ),
    analysis="In each seed every fourth frame tells an expert from one who stands still better (areas of 0.93, 0.89 "
    "and 0.82 for 0.81, 0.78 and 0.74), and the margin is 1.5 to 2.4 times as large; how much larger, three seeds "
    "do not say.",
    minutes=12,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = [one.film for one in played(NAME, range(1000 * seed, 1000 * seed + TRAIN), (0.9,))]
    tests = range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS)
    seen = [one.film[: START + 1] for one in played(NAME, tests, (0.9,))]
    still = [film[:1].expand_as(film) for film in seen]
    found = {}
    for skip in (1, 4):
        reward = model_of(films, seed, skip=skip, window=4)
        expert, idle = steps_of(reward, seen), steps_of(reward, still)
        found[f"skip {skip}"] = auc(expert, idle)
        found[f"margin {skip}"] = float(np.mean(expert) - np.mean(idle))
    return found
