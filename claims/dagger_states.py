"""A policy that is corrected in the states it gets itself into beats one that saw as many demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from claims.imitation import CPU, TASK, Lessons, clone, lessons, policy_of, solved
from claims.ledger import Claim, Figure, above
from filmstrip.data.synthetic.demonstrations import at_random, expert
from filmstrip.evals.success import acting
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.teachers import EncoderOnly
from filmstrip.protocols import Features, Grid, as_float
from filmstrip.systems.control import behaviour_cloning

FIRST, ROUNDS, STEPS, TESTS = 10, 3, 400, 40
EPISODES = tuple(FIRST * (1 + number) for number in range(ROUNDS + 1))
"""Episodes that policies have learnt from."""

CLAIM = Claim(
    systems=("control.behaviour_cloning",),
    finding=__doc__.strip(),
    paper="Ross, Gordon & Bagnell 2011: with as many labelled states, DAgger's policies fall off the track less "
    "often than those of supervised learning on the expert's own states, which do not get better with more of them "
    "(plots of Super Tux Kart and Super Mario Bros.). Toto (Rajasegaran et al. 2025) trains its simulated robots so.",
    here=f"Touching a thing on a table of 32 x 32 pixels (`demonstrations`, {TASK.steps} actions). The frozen "
    "encoder is the frame itself, averaged over squares of 4 x 4 pixels, so that the policy, MVP's head, is what "
    f"learns. DAgger: {FIRST} demonstrations, then {ROUNDS} rounds of {FIRST} episodes in which the policy acts and "
    "the expert says what it would have done; each time a new policy learns from all. Cloning: as many "
    f"demonstrations. {STEPS} steps of 128 frames each, {TESTS} unseen tables.",
    baseline="Cloning from as many episodes; actions at random; the expert.",
    figures={
        **{
            f"cloning {count}": Figure(says=f"cloning {count} demonstrations: solved, %", digits=0)
            for count in EPISODES
        },
        **{
            f"dagger {count}": Figure(says=f"DAgger, {count} episodes: solved, %", digits=0) for count in EPISODES[1:]
        },
        "cloning": Figure(says=f"cloning, mean over {EPISODES[1]} to {EPISODES[-1]} demonstrations, %"),
        "dagger": Figure(says="DAgger, mean over as many episodes, %"),
        "random": Figure(says="by random actions, %", digits=0),
        "expert": Figure(says="by the expert, %", digits=0),
    },
    expected=(
        above("dagger", "cloning", "DAgger solves more tables than cloning as many episodes"),
        above(f"dagger {EPISODES[-1]}", f"cloning {FIRST}", "and more than what it began with"),
        above(f"cloning {FIRST}", "random", "which is more than actions at random"),
    ),
    analysis="Nine tables in ten are far from the floor now, and the first demonstrations alone solve three times as "
    "many as chance does. DAgger and cloning stay level at every number of episodes: the expert's own "
    "states already cover what the policy meets on an empty table of one thing, whatever it does. DAgger "
    "pays where mistakes lead to states that demonstrations never show.",
    minutes=5,
)


@dataclass(frozen=True, kw_only=True)
class SquaresConfig(ObjectiveConfig):
    """The frame itself in place of an encoder."""

    def build(self) -> EncoderOnly:
        return EncoderOnly(Squares())


class Squares(nn.Module):
    """One token a frame: its squares' mean colours."""

    width, any_grid = 192, True

    def forward(self, video: Tensor, layers: bool = False) -> Features:
        small = F.avg_pool2d(as_float(rearrange(video, "b t c h w -> (b t) c h w")), 4)
        tokens = rearrange(small, "(b t) c h w -> b t (c h w)", t=video.shape[1])
        return Features(tokens, Grid(video.shape[1], 1, 1))


CONFIG = behaviour_cloning.BehaviourCloningConfig(encoder=SquaresConfig(), norm="batch")


def measure(seed: int, folder: Path) -> dict[str, float]:
    tests = (seed, 9)

    def learnt(given: Lessons, number: int) -> behaviour_cloning.BehaviourCloning:
        policy = policy_of(CONFIG, seed)
        clone(policy, given, steps=STEPS, seed=seed + number)
        return policy

    gathered = lessons(FIRST, (seed, 0))
    policy = learnt(gathered, 0)
    found = {f"cloning {FIRST}": solved(policy, TESTS, tests)}
    for number, count in enumerate(EPISODES[1:], 1):
        gathered = gathered.with_more(lessons(FIRST, (seed, number), acting(policy, CPU)))
        policy = learnt(gathered, number)
        found[f"dagger {count}"] = solved(policy, TESTS, tests)
        found[f"cloning {count}"] = solved(learnt(lessons(count, (seed, 0)), number), TESTS, tests)
    for name in ("dagger", "cloning"):
        found[name] = sum(found[f"{name} {count}"] for count in EPISODES[1:]) / ROUNDS
    return found | {"random": solved(at_random(seed), TESTS, tests), "expert": solved(expert, TESTS, tests)}
