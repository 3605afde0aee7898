"""A policy that is corrected in the states it gets itself into beats one that saw as many demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from claims.imitation import CPU, clone, lessons, policy_of, solved
from claims.ledger import Claim, Figure, above
from filmstrip.data.synthetic.demonstrations import at_random, expert
from filmstrip.evals.success import acting
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.teachers import EncoderOnly
from filmstrip.protocols import Features, Grid, as_float
from filmstrip.systems.control import behaviour_cloning

FIRST, ROUNDS, MORE, STEPS, TESTS = 15, 3, 15, 800, 40

CLAIM = Claim(
    systems=("control.behaviour_cloning",),
    finding=__doc__.strip(),
    paper="Ross, Gordon & Bagnell 2011: with as many labelled states, DAgger's policies fall off the track less "
    "often than those of supervised learning on the expert's own states, which do not get better with more of them "
    "(plots of Super Tux Kart and Super Mario Bros.). Toto (Rajasegaran et al. 2025) trains its simulated robots so.",
    here="Pushing a thing to the middle of a table of 32 x 32 pixels (`demonstrations`, 30 actions). The frozen "
    "encoder is the frame itself, averaged over squares of 4 x 4 pixels, so that the policy, MVP's head, is what "
    f"learns. DAgger: {FIRST} demonstrations, then {ROUNDS} rounds of {MORE} episodes in which the policy acts and "
    "the expert says what it would have done; each time a new policy learns from all. Cloning: "
    f"{FIRST}, or {FIRST + ROUNDS * MORE} demonstrations. {STEPS} steps of 128 frames each, {TESTS} unseen tables.",
    baseline="Cloning from as many episodes; actions at random; the expert.",
    figures={
        "dagger": Figure(says="tables solved by DAgger, %", digits=0),
        "cloning": Figure(says=f"by cloning {FIRST + ROUNDS * MORE} demonstrations, %", digits=0),
        "few": Figure(says=f"by cloning the first {FIRST} demonstrations, %", digits=0),
        "random": Figure(says="by random actions, %", digits=0),
        "expert": Figure(says="by the expert, %", digits=0),
    },
    expected=(
        above("dagger", "cloning", "DAgger solves more tables than cloning as many episodes"),
        above("dagger", "few", "and more than what it began with"),
    ),
    analysis="Cloning as many demonstrations is better than DAgger here, and also where policies see the table's "
    "state in place of a picture (30 actions, two seeds, 60 tables: 98 and 100% against 95 and 95%). Tables begin "
    "anywhere, and the expert goes around things and corrects its pushes, so that its episodes show what a policy "
    "gets itself into; those of a policy that solves few tables are spent where it is stuck. 15 to 60 episodes leave "
    "a policy short of seeing where the thing is. Seconds were measured while other work shared the cores.",
    minutes=3.0,
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
    def learnt(given, number: int) -> behaviour_cloning.BehaviourCloning:
        policy = policy_of(CONFIG, seed)
        clone(policy, given, steps=STEPS, seed=seed + number)
        return policy

    torch.manual_seed(seed)
    tests = (seed, 9)
    gathered = lessons(FIRST, (seed, 0))
    policy = learnt(gathered, 0)
    found = {"few": solved(policy, TESTS, tests)}
    for number in range(1, ROUNDS + 1):
        gathered = gathered.with_more(lessons(MORE, (seed, number), acting(policy, CPU)))
        policy = learnt(gathered, number)
    found["dagger"] = solved(policy, TESTS, tests)
    found["cloning"] = solved(learnt(lessons(FIRST + ROUNDS * MORE, (seed, 0)), ROUNDS), TESTS, tests)
    return found | {"random": solved(at_random(seed), TESTS, tests), "expert": solved(expert, TESTS, tests)}
