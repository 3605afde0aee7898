"""A reward by likelihood needs the past: single frames do not tell an expert from its frames in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from claims.expert_films import model_of, played, rewarded_by, steps_of
from claims.ledger import Claim, Figure, above, equal
from filmstrip.evals.reward_alignment import auc

TRAIN, TESTS, WINDOWS = 40, 12, (1, 2, 4, 8)

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: longer contexts help, with diminishing returns; without any, agents learn a "
    "stationary pose (plots).",
    here=f"`orbit` at 32 x 32 pixels, where each single frame of an expert is as likely as any other. VideoGPT of 8 "
    f"frames learns {TRAIN} episodes; {TESTS} others are rewarded by windows of {', '.join(map(str, WINDOWS))} "
    "frames, and so are the same films with frames in random order and played backwards. Areas under the "
    "curve are of steps.",
    baseline="A window of one frame, which has no past.",
    figures={
        **{f"shuffled {n}": Figure(says=f"expert against shuffled, {n} frames", digits=2) for n in WINDOWS},
        **{f"backwards {n}": Figure(says=f"expert against backwards, {n} frames", digits=2) for n in WINDOWS},
    },
    expected=(
        above("shuffled 8", "shuffled 1", "the past tells an expert from its frames in another order"),
        equal("shuffled 1", 0.5, "without a past both earn the same", within=0.02),
        above("backwards 8", "backwards 1", "and forwards from backwards"),
        above("shuffled 2", "shuffled 1", "one earlier frame tells already"),
    ),
    minutes=8,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = [one.film for one in played("orbit", range(1000 * seed, 1000 * seed + TRAIN), (0.9,))]
    tests = range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS)
    seen = [one.film for one in played("orbit", tests, (0.9,))]
    rng = np.random.default_rng(seed)
    shuffled = [film[torch.from_numpy(rng.permutation(len(film)))] for film in seen]
    backwards = [film.flip(0) for film in seen]
    reward, found = model_of(films, seed), {}
    for window in WINDOWS:
        own = rewarded_by(reward, window=window)
        expert = steps_of(own, seen)
        found[f"shuffled {window}"] = auc(expert, steps_of(own, shuffled))
        found[f"backwards {window}"] = auc(expert, steps_of(own, backwards))
    return found
