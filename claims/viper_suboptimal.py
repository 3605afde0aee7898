"""The likelihood of films of experts who are not the best is highest for what is as good as they are, not better."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from claims.expert_films import SIZE, model_of, played, steps_of
from claims.ledger import Claim, Figure, above, below, equal
from filmstrip.evals.reward_alignment import Trajectory
from filmstrip.rl.envs import Environment, EnvironmentConfig
from filmstrip.rl.policies import Chooser, scripted
from filmstrip.rl.recording import play
from filmstrip.rl.rewards import VideoReward

TRAIN, TESTS, WINDOW = 40, 6, 4
OWN, NOISE = 0.6, 0.9
"""Speed of the experts that are learnt from, of the best one's, and the probability of their action."""
SPEEDS = (0.2, 0.4, 0.6, 0.8, 1.0)
QUALITY, QUALITIES = 0.6, (0.2, 0.4, 0.6, 0.8, 1.0)

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: from films of agents with half to three quarters of an expert's return, an agent "
    "learns to be as good as these (plots without numbers).",
    here=f"`orbit` (a point that circles, 32 x 32 pixels), where a slower expert earns less. VideoGPT of {WINDOW} "
    f"frames learns {TRAIN} episodes of an expert at {OWN} of the best speed (and quality {NOISE}); {TESTS} others "
    f"of each speed ({', '.join(map(str, SPEEDS))}) are rewarded. A second model learns as many of an expert at "
    f"full speed who acts at random with a probability of {1 - QUALITY:.1f}, and rewards {TESTS} of each quality "
    f"({', '.join(map(str, QUALITIES))}).",
    baseline="The mean rewards of slower and of faster films, and true returns, which rise with the speed.",
    figures={
        **{f"speed {s}": Figure(says=f"mean reward at {s} of the speed, nats a code", digits=3) for s in SPEEDS},
        "own return": Figure(says="true return at the experts' own speed, % of that at full speed", digits=0),
        "peak": Figure(says="speed of which the mean reward is highest", digits=1),
        **{
            f"quality {q}": Figure(says=f"mean reward of quality {q}, by experts of {QUALITY}", digits=3)
            for q in QUALITIES
        },
    },
    expected=(
        above(f"speed {OWN}", "speed 1.0", "experts' own speed earns more than the best one"),
        above(f"speed {OWN}", "speed 0.2", "and more than a slower one"),
        equal("peak", OWN, "no speed earns more than their own", within=0.05),
        below("own return", 80.0, "by the true reward the best speed earns more"),
        below(f"quality {QUALITY}", "quality 1.0", "of experts who err at random, one who never errs earns more"),
    ),
    minutes=7,
    analysis="The reward is highest at the experts' own speed in each seed, whatever the true reward says. A fifth "
    "of the best speed earns 0.09 to 0.22 nats a code less in each, too unequally for an interval of three seeds.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    tests = [500_000 + 1000 * seed + i for i in range(TESTS)]
    reward = model_of([one.film for one in _at_speed(OWN, _train(seed))], seed, window=WINDOW)
    seen = {speed: _at_speed(speed, tests) for speed in SPEEDS}
    means = {speed: _mean(reward, films) for speed, films in seen.items()}
    returns = {speed: float(np.mean([one.value for one in films])) for speed, films in seen.items()}
    found = {f"speed {speed}": mean for speed, mean in means.items()}
    found |= {"peak": max(means, key=means.__getitem__), "own return": 100 * returns[OWN] / returns[1.0]}
    erring = model_of([one.film for one in played("orbit", _train(seed), (QUALITY,))], seed, window=WINDOW)
    return found | {f"quality {q}": _mean(erring, played("orbit", tests, (q,))) for q in QUALITIES}


def _train(seed: int) -> range:
    return range(1000 * seed, 1000 * seed + TRAIN)


def _at_speed(speed: float, seeds: Sequence[int]) -> list[Trajectory]:
    """Episodes of an expert whose every action is shorter than the best one's."""
    environment, found = EnvironmentConfig(name="orbit", size=SIZE).build(), []
    for seed in seeds:
        choose = scripted("expert", np.random.default_rng((seed, 7)), NOISE)
        one = play(environment, partial(_slowed, choose, speed), seed)
        found.append(Trajectory(one.video(), one.value, NOISE))
    return found


def _slowed(choose: Chooser, speed: float, environment: Environment, frame: np.ndarray) -> np.ndarray:
    return speed * choose(environment, frame)


def _mean(reward: VideoReward, films: Sequence[Trajectory]) -> float:
    """The mean reward of all actions of some films."""
    return float(steps_of(reward, [one.film for one in films]).mean())
