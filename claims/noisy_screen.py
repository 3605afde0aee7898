"""Noise stays badly foretold for ever, and yet earns little by distillation or by an ensemble's disagreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below
from filmstrip.protocols import Batch, Objective, Phase, as_float
from filmstrip.rl.envs import EnvironmentConfig
from filmstrip.rl.policies import scripted
from filmstrip.rl.recording import play
from filmstrip.systems import find
from filmstrip.systems.control.dreamer import Dreamer
from filmstrip.systems.control.drq import DrQ

EPISODES, TESTS, LENGTH, ROWS, SIZE = 40, 10, 8, 16, 32
STEPS = 600
SCREEN, DOT = 12, 3
"""Height and width of the screen in a corner, and of its dots, pixels."""

CLAIM = Claim(
    systems=("control.dreamer", "control.drq"),
    finding=__doc__.strip(),
    paper="Burda et al. 2019: an agent with a bonus for errors of foretelling stays at a noisy television, and "
    "random network distillation, whose targets do not depend on chance, need not (text); Sekar et al. 2020 "
    "(Plan2Explore): members of an ensemble come to agree on the mean of what is noise (text).",
    here=f"`orbit` at {SIZE} x {SIZE} pixels, {EPISODES} episodes of random actions; in every second sequence a "
    f"screen of {SCREEN} x {SCREEN} pixels shows other dots in each frame, new ones whenever it is drawn. DrQ's "
    f"random network distillation, and Dreamer's world model with its ensemble, learn {STEPS} batches of {ROWS} "
    f"sequences of {LENGTH} frames. Bonuses are those of {TESTS} other episodes, played alike: with a dark screen, "
    "with a noisy one, and in inverted colours, which were never seen.",
    baseline="The mean error with which the same ensemble foretells latents, and each bonus at the dark screen.",
    figures={
        "error noise": Figure(says="error of foretelling at a noisy screen, times that at a dark one"),
        "distillation noise": Figure(says="the same of the bonus of distillation"),
        "distillation new": Figure(says="that bonus of inverted colours, times that at a dark screen"),
        "disagreement noise": Figure(says="bonus of disagreement at a noisy screen, times that at a dark one"),
        "disagreement new": Figure(says="the same of inverted colours"),
    },
    expected=(
        below("disagreement noise", "error noise", "disagreement rises less with noise than the error does"),
        below("distillation noise", "error noise", "and so does the bonus of distillation"),
        above("disagreement new", "disagreement noise", "disagreement is larger at what is new than at noise"),
        above("distillation new", "distillation noise", "and so is the bonus of distillation"),
    ),
    minutes=4,
    analysis="All four directions hold in each of five seeds: at a noisy screen the error of foretelling is 8 to 92 "
    "times that at a dark one, the bonus of distillation 1.1 to 1.3 times and disagreement 2.0 to 2.5; at what is "
    "new the bonuses are 29 to 381 and 2.4 to 5.6 times those. The errors at a dark screen are so near zero that "
    "ratios to them differ widely, and intervals reach beyond zero. Disagreement is little larger at what is new.",
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    torch.manual_seed(seed)
    drq, dreamer = (find(f"control.{name}:tiny_bonus").objective for name in ("drq", "dreamer"))
    novelty, world = drq.build().train(), replace(dreamer, ensemble_size=5).build().train()
    train, tests = _episodes(1000 * seed, EPISODES), _episodes(500_000 + 1000 * seed, TESTS)
    order = torch.Generator().manual_seed(seed)
    shown = {"plain": tests, "noise": [_noisy(one, order) for one in tests], "new": [_inverted(one) for one in tests]}
    updates = [*_updates(novelty, "bonus"), *_updates(world, "model", "ensemble")]
    for step in range(1, STEPS + 1):
        batch = _drawn(train, order, step)
        novelty.distillation.pixels.add(as_float(batch["video"][:, -1]))
        for update in updates:
            update(batch)
        world.after_step(step)
    found = {"error noise": _times(_error, world, shown, "noise")}
    for name, bonus, agent in (("distillation", _distilled, novelty), ("disagreement", _disagreement, world)):
        found |= {f"{name} {kind}": _times(bonus, agent, shown, kind) for kind in ("noise", "new")}
    return found


@dataclass
class Seen:
    """An episode, as it looked."""

    film: Tensor
    """Its frames, ``T 3 H W`` uint8."""
    actions: Tensor
    """Actions ``T A``, of which each led to its frame; the first does nothing."""


def _episodes(first: int, count: int) -> list[Seen]:
    """Episodes beside a dark screen."""
    environment, found = EnvironmentConfig(name="orbit", size=SIZE).build(), []
    for seed in range(first, first + count):
        one = play(environment, scripted("random", np.random.default_rng((seed, 7))), seed)
        film = one.video()
        film[:, :, :SCREEN, :SCREEN] = 0
        found.append(Seen(film, torch.from_numpy(np.stack(one.actions)).float()))
    return found


def _noisy(episode: Seen, order: torch.Generator) -> Seen:
    """The episode beside a screen that shows other dots in each frame."""
    levels = torch.randint(2, (len(episode.film), 1, SCREEN // DOT, SCREEN // DOT), generator=order) * 255
    film = episode.film.clone()
    film[:, :, :SCREEN, :SCREEN] = levels.repeat_interleave(DOT, 2).repeat_interleave(DOT, 3).byte()
    return Seen(film, episode.actions)


def _inverted(episode: Seen) -> Seen:
    return Seen(255 - episode.film, episode.actions)


def _drawn(episodes: Sequence[Seen], order: torch.Generator, step: int) -> Batch:
    """Sequences of episodes at random, as a replay gives them, every second one beside noise."""
    rows = []
    for row, number in enumerate(torch.randint(len(episodes), (ROWS,), generator=order).tolist()):
        start = int(torch.randint(len(episodes[number].film) - LENGTH + 1, (1,), generator=order))
        rows.append((_noisy(episodes[number], order) if row % 2 else episodes[number], start))
    return _batch(rows, step)


def _batch(rows: Sequence[tuple[Seen, int]], step: int) -> Batch:
    first = torch.zeros(len(rows), LENGTH, dtype=torch.bool)
    first[:, 0] = torch.tensor([start == 0 for _, start in rows])
    return {
        "video": torch.stack([one.film[start : start + LENGTH] for one, start in rows]),
        "action": torch.stack([one.actions[start : start + LENGTH] for one, start in rows]),
        "reward": torch.zeros(len(rows), LENGTH),
        "terminal": torch.zeros(len(rows), LENGTH, dtype=torch.bool),
        "first": first,
        "seed": step * ROWS + torch.arange(len(rows)),
    }


def _updates(objective: Objective, *names: str) -> list[Callable[[Batch], None]]:
    """A step of each of some phases, which changes its own parameters alone."""
    return [_update(objective, phase) for phase in objective.phases() if phase.name in names]


def _update(objective: Objective, phase: Phase) -> Callable[[Batch], None]:
    own = [param for module in phase.modules for param in module.parameters()]
    optimiser = torch.optim.AdamW(own, lr=1e-3, weight_decay=0.0)

    def update(batch: Batch) -> None:
        objective(batch, phase.name).total.backward()
        torch.nn.utils.clip_grad_norm_(own, 100.0)
        optimiser.step()
        objective.zero_grad()

    return update


def _times(
    bonus: Callable[[Any, Batch], Tensor], agent: Objective, shown: Mapping[str, Sequence[Seen]], kind: str
) -> float:
    """The mean bonus of some episodes, times that beside a dark screen."""
    means = {}
    for name in (kind, "plain"):
        rows = [(one, start) for one in shown[name] for start in range(0, len(one.film) - LENGTH, LENGTH)]
        with torch.no_grad():
            means[name] = float(bonus(agent, _batch(rows, 0)).mean())
    return means[kind] / means["plain"]


def _distilled(agent: DrQ, batch: Batch) -> Tensor:
    assert agent.distillation is not None, "it has a bonus"
    return agent.distillation(as_float(batch["video"].flatten(0, 1)))


def _disagreement(agent: Dreamer, batch: Batch) -> Tensor:
    assert agent.ensemble is not None, "it has a bonus"
    state = agent.model.observe(batch, None).state
    return agent.ensemble.disagreement(state.features[:, :-1], batch["action"][:, 1:])


def _error(agent: Dreamer, batch: Batch) -> Tensor:
    """Squared errors of the next latents, summed over them, mean over the members."""
    assert agent.ensemble is not None, "it has a bonus"
    state = agent.model.observe(batch, None).state
    foretold = agent.ensemble(state.features[:, :-1], batch["action"][:, 1:])
    return (foretold - state.latent[:, 1:].flatten(-2)).square().sum(dim=-1).mean(dim=0)
