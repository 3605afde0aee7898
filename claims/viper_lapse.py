"""The likelihood of a frame falls when an expert errs, and where it errs; that of a whole window says so later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from claims.expert_films import SIZE, WINDOW, model_of, played, rewarded_by, steps_of
from claims.ledger import Claim, Figure, above
from filmstrip.evals.reward_alignment import auc, correlation, ranks
from filmstrip.rl.envs import EnvironmentConfig
from filmstrip.rl.policies import scripted_action
from filmstrip.rl.rewards import VideoReward

TRAIN, GRADED, TESTS, QUALITIES = 40, 40, 40, (0.0, 0.25, 0.5, 0.75, 1.0)
ERRS = range(20, 32)
"""Steps in which an expert goes the wrong way."""
SEEN = 16
"""Levels of 256 by which a pixel differs visibly."""

CLAIM = Claim(
    systems=("rewards.viper", "generation.videogpt"),
    finding=__doc__.strip(),
    paper="Escontrela et al. 2023: pictures of where the likelihood is low show what is unexpected (uncertainty "
    "maps); the text rewards by a frame given those before it, the published code by the whole window.",
    here=f"`orbit` (a point that circles, 32 x 32 pixels): VideoGPT of {WINDOW} frames of 4 x 4 codes learns {TRAIN} "
    f"episodes of an expert of quality 0.9. In {TESTS} others an expert turns back for {len(ERRS)} steps, from step "
    f"{ERRS.start} on. At each of them the codes are marked whose pixels differ from those that the expert's own "
    "action would have led to; surprise is minus the log-likelihood of a code. The delay is the number of steps "
    "after which the mean reward has fallen halfway, and it recovers in the same way. Rank correlations are of "
    f"{GRADED} episodes of graded quality.",
    baseline="For the map, how much pixels changed since the frame before; for the frame's likelihood, that of the "
    "whole window.",
    figures={
        "map": Figure(says="area under the curve of a code's surprise, marked codes against others", digits=2),
        "map motion": Figure(says="the same of its change since the frame before", digits=2),
        "wrong": Figure(says="surprise of codes that change, while the expert errs against before", digits=2),
        "wrong motion": Figure(says="the same of how much they change", digits=2),
        "marked": Figure(says="codes that are marked, %", digits=0),
        "fall": Figure(says="steps until the reward has fallen halfway"),
        "fall joint": Figure(says="the same of the whole window's"),
        "rise": Figure(says="steps until it has risen halfway, once the expert goes on"),
        "rise joint": Figure(says="the same of the whole window's"),
        "steps": Figure(says="rank correlation of the steps' rewards with their true ones", digits=2),
        "steps joint": Figure(says="the same of the whole window's", digits=2),
        "spearman": Figure(says="rank correlation of episodes' returns and mean rewards", digits=2),
        "spearman joint": Figure(says="the same of the whole window's", digits=2),
    },
    expected=(
        above("map", 0.8, "what is unlikely lies where the point leaves the expert's way"),
        above("wrong", "wrong motion", "and what moves wrongly is less likely than what moves rightly"),
        above("fall joint", "fall", "the window's likelihood falls later"),
        above("rise joint", "rise", "and recovers later"),
    ),
    minutes=9,
)


@dataclass
class Lapse:
    """An episode in which an expert errs for a while."""

    film: Tensor
    """Its frames, ``T 3 H W`` uint8."""
    earned: np.ndarray
    """True rewards of all actions, ``T-1``."""
    wanted: dict[int, Tensor]
    """Frames ``3 H W`` that the expert's own actions would have led to, by the frames that they would have been."""


def measure(seed: int, folder: Path) -> dict[str, float]:
    films = [one.film for one in played("orbit", range(1000 * seed, 1000 * seed + TRAIN), (0.9,))]
    return figures(model_of(films, seed), seed)


def figures(reward: VideoReward, seed: int) -> dict[str, float]:
    """What a model of the experts' films says of episodes with lapses and of graded ones."""
    tests = range(500_000 + 1000 * seed, 500_000 + 1000 * seed + TESTS)
    seen, joint = _lapses(tests), rewarded_by(reward, kind="joint")
    graded = played("orbit", tests[:GRADED], QUALITIES)
    returns = ranks(np.array([one.value for one in graded]))
    found = _maps(reward, seen)
    for name, kind in (("", reward), (" joint", joint)):
        curves = np.stack([one.values[1:] for one in kind.of_films([lapse.film for lapse in seen])])
        found |= {f"{key}{name}": value for key, value in _delays(curves.mean(axis=0)).items()}
        earned = np.concatenate([lapse.earned for lapse in seen])
        found[f"steps{name}"] = correlation(ranks(curves.flatten()), ranks(earned))
        means = np.array([steps_of(kind, [one.film]).mean() for one in graded])
        found[f"spearman{name}"] = correlation(returns, ranks(means))
    return found


def _lapses(seeds: Sequence[int]) -> list[Lapse]:
    environment, found = EnvironmentConfig(name="orbit", size=SIZE).build(), []
    for seed in seeds:
        frames, earned, wanted = [environment.reset(seed)], [], {}
        rng, last = np.random.default_rng((seed, 7)), False
        while not last:
            own = scripted_action(environment, "expert", rng)
            if errs := len(earned) in ERRS:
                before = environment.state_dict()
                wanted[len(frames)] = torch.from_numpy(environment.step(own).frame)
                environment.load_state_dict(before)
            step = environment.step(-own if errs else own)
            frames.append(step.frame)
            earned.append(step.reward)
            last = step.last
        found.append(Lapse(torch.from_numpy(np.stack(frames)), np.array(earned), wanted))
    return found


def _maps(reward: VideoReward, seen: Sequence[Lapse]) -> dict[str, float]:
    """How well surprise, and motion, show the codes whose pixels are not the expected ones, and tell motion that is
    wrong from motion that is right."""
    marked: list[np.ndarray] = []
    surprise, motion, right, wrong = ([] for _ in range(4))
    for lapse, rewards in zip(seen, reward.of_films([one.film for one in seen])):
        grid = rewards.maps.shape[1:]
        for frame in range(WINDOW, max(lapse.wanted) + 1):
            unlikely, moved = -rewards.maps[frame], _by_code(lapse.film[frame], lapse.film[frame - 1], grid)
            both = np.stack([unlikely, moved])[:, moved > SEEN]
            if frame not in lapse.wanted:
                right.append(both)
                continue
            wrong.append(both)
            marked.append(_by_code(lapse.film[frame], lapse.wanted[frame], grid) > SEEN)
            surprise.append(unlikely)
            motion.append(moved)
    where, after, before = np.stack(marked), np.concatenate(wrong, axis=1), np.concatenate(right, axis=1)
    found = {"marked": 100 * float(where.mean())}
    for number, (name, values) in enumerate((("", np.stack(surprise)), (" motion", np.stack(motion)))):
        found[f"map{name}"] = auc(values[where], values[~where])
        found[f"wrong{name}"] = auc(after[number], before[number])
    return found


def _by_code(one: Tensor, other: Tensor, grid: Sequence[int]) -> np.ndarray:
    """The largest difference of two frames' pixels within each code, levels."""
    differs = (one.int() - other.int()).abs().amax(dim=0)
    h, w = grid
    return differs.unflatten(1, (w, -1)).unflatten(0, (h, -1)).amax(dim=(1, 3)).numpy()


def _delays(curve: np.ndarray) -> dict[str, float]:
    """Steps from when the expert errs, and from when it goes on, until the reward is halfway between its levels
    before and at the end of the lapse, or at the end of the episode."""
    before, within = curve[ERRS.start - 8 : ERRS.start].mean(), curve[ERRS.stop - 4 : ERRS.stop].mean()
    after = curve[-8:].mean()
    fallen = curve[ERRS.start :] <= (before + within) / 2
    risen = curve[ERRS.stop :] >= (within + after) / 2
    return {"fall": 1.0 + int(fallen.argmax()), "rise": 1.0 + int(risen.argmax())}
