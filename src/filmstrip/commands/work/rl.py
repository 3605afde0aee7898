"""What ``filmstrip rl`` does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from filmstrip.errors import UserError
from filmstrip.progress import tracked
from filmstrip.rl.envs import Environment, EnvironmentConfig
from filmstrip.rl.policies import scripted_action
from filmstrip.rl.recording import Episode, play, write_episodes
from filmstrip.runs.contents import is_run
from filmstrip.runs.outside import allow, import_allowed

if TYPE_CHECKING:
    from filmstrip.commands.rl import Record

SCRIPTED = ("expert", "random", "still")


def record(command: Record) -> None:
    """Record episodes and print their returns.

    Raises:
        UserError: the environment or the policy cannot be used, or the folder is not empty.
    """
    if ":" in command.env:
        allow(command.env.partition(":")[0].partition(".")[0])  # it was typed
    if command.policy not in SCRIPTED and not is_run(command.policy):
        raise UserError(f"--policy {command.policy}: use {', '.join(SCRIPTED)}, or the run folder of an agent")
    config = EnvironmentConfig(
        name=command.env,
        size=command.size or 32,
        action_repeat=command.action_repeat,
        max_steps=command.max_steps,
    )
    environment = config.build(import_allowed)
    episodes = _scripted(command, environment)
    notes = {"environment": asdict(config), "policy": command.policy}
    kept = write_episodes(
        tracked(episodes, "playing", total=command.episodes), command.out, environment, best=command.best, notes=notes
    )
    values = np.array([one.value for one in kept])
    steps = sum(len(one.frames) - 1 for one in kept)
    crashed = f", {environment.crashes} crashes" if environment.crashes else ""
    print(
        f"{command.out}: {len(kept)} episodes, {steps} steps, return {values.mean():.4g} (standard deviation "
        f"{values.std():.4g}, {values.min():.4g} to {values.max():.4g}){crashed}"
    )


def _scripted(command: Record, environment: Environment) -> Iterator[Episode]:
    for number in range(command.episodes):
        seed = command.seed + number
        quality = command.quality[number % len(command.quality)]
        rng = np.random.default_rng((seed, 7))
        told = quality if command.policy == "expert" else None
        yield play(
            environment,
            lambda env, frame, rng=rng, quality=quality: scripted_action(env, command.policy, rng, quality),
            seed,
            told,
        )
