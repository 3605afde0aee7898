"""A reward from films of two arms at several tasks holds for an arm at a task that none of the films shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from claims.expert_films import model_of, played, steps_of
from claims.ledger import Claim, Figure, above
from filmstrip.evals.reward_alignment import auc
from filmstrip.rl.envs.reach import GOALS, LOOKS

HELD_OUT = "reach/left/orange"
TRAIN, TESTS = 12, 10
"""Films of each arm at each task, and episodes of each kind that are rewarded."""
MODEL = {"skip": 4, "window": 4}

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: of 23 tasks of one arm and 30 of another, 20 in common, one model tells an expert "
    "of a held-out arm and task from random actions, and an agent learns by it (plots).",
    here=f"`reach` (an arm with inertia, 32 x 32 pixels) at {len(GOALS)} tasks in {len(LOOKS)} looks, links of other "
    f"lengths included: VideoGPT of 4 frames, every fourth, learns {TRAIN} episodes of an expert of quality 0.9 of "
    f"each arm at each task but `{HELD_OUT}`. {TESTS} other episodes of experts and as many of random actions are "
    "rewarded; areas under the curve are of single steps.",
    baseline="A model of as many films of the other arm alone, which has never seen this one.",
    figures={
        "held out": Figure(says="expert against random, the arm at the held-out task", digits=2),
        "same arm": Figure(says="expert against random, the arm at a task it was seen at", digits=2),
        "other arm": Figure(says="expert against random at the held-out task, by films of the other arm", digits=2),
        "margin": Figure(says="reward of experts above that of random actions, held out, nats a code", digits=3),
    },
    expected=(
        above("held out", 0.6, "an expert of the unseen pair earns more than random actions"),
        above("held out", "other arm", "more clearly than by films of the other arm alone"),
        above("margin", 0.0, "the mean reward is above that of random actions"),
    ),
    minutes=8,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    cells = [f"reach/{task}/{look}" for look in LOOKS for task in GOALS]
    seen = [cell for cell in cells if cell != HELD_OUT]
    look = HELD_OUT.rpartition("/")[2]
    other = [cell for cell in seen if not cell.endswith(look)]
    both = model_of(_films(seen, TRAIN, seed), seed, **MODEL)
    alone = model_of(_films(other, TRAIN * len(seen) // len(other), seed), seed, **MODEL)
    first = 500_000 + 1000 * seed
    expert, random = (_tests(HELD_OUT, first, quality) for quality in (0.9, 0.0))
    same = next(cell for cell in seen if cell.endswith(look))
    margin = steps_of(both, expert).mean() - steps_of(both, random).mean()
    return {
        "held out": auc(steps_of(both, expert), steps_of(both, random)),
        "same arm": auc(steps_of(both, _tests(same, first, 0.9)), steps_of(both, _tests(same, first, 0.0))),
        "other arm": auc(steps_of(alone, expert), steps_of(alone, random)),
        "margin": float(margin),
    }


def _films(cells: Sequence[str], count: int, seed: int) -> list[Tensor]:
    return [
        one.film
        for number, cell in enumerate(cells)
        for one in played(cell, range(1000 * seed + 100 * number, 1000 * seed + 100 * number + count), (0.9,))
    ]


def _tests(cell: str, first: int, quality: float) -> list[Tensor]:
    return [one.film for one in played(cell, range(first, first + TESTS), (quality,))]
