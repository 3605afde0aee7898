"""Policies that need no training: at random, an expert of some quality, standing still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from filmstrip.errors import UserError
from filmstrip.rl.envs.environment import Environment
from filmstrip.rl.envs.own import Action

Scripted = Literal["expert", "random", "still"]
Chooser = Callable[[Environment, np.ndarray], Action]
"""Action in an environment whose picture is given, ``3 H W`` uint8."""


def random_action(environment: Environment, rng: np.random.Generator) -> Action:
    """Any action, all equally likely."""
    space = environment.actions
    return int(rng.integers(space.num_actions)) if space.discrete else rng.uniform(-1, 1, space.action_dim)


def scripted(kind: Scripted, rng: np.random.Generator, quality: float = 1.0) -> Chooser:
    """The policy of :func:`scripted_action`."""
    return lambda environment, frame: scripted_action(environment, kind, rng, quality)


def scripted_action(
    environment: Environment, kind: Scripted, rng: np.random.Generator, quality: float = 1.0
) -> Action:
    """What a policy without training does now.

    An expert of a ``quality`` below 1 does, with the remaining probability, anything at random: at 0 it is random.

    Raises:
        UserError: the environment has no expert, or nothing that would leave it still.
    """
    by_chance = random_action(environment, rng)
    lucky = rng.random() < quality
    if kind == "random" or (kind == "expert" and not lucky):
        return by_chance
    own = environment.own
    if kind == "still":
        if not environment.actions.discrete:
            return np.zeros(environment.actions.action_dim)
        if own is None:
            raise UserError(f"nothing says which action of {environment.config.name} does nothing")
        return own.still
    if own is None:
        raise UserError(
            f"{environment.config.name} has no expert of its own: give --policy random, or a run (--policy RUN)"
        )
    return own.expert()
