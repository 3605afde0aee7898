"""What ``filmstrip rl`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from filmstrip.errors import UserError
from filmstrip.evals.returns import acted_in, acting, shown_task
from filmstrip.inference import device_of
from filmstrip.progress import tracked
from filmstrip.protocols import Agent, Objective
from filmstrip.rl.envs import Environment, EnvironmentConfig
from filmstrip.rl.experience import Experience
from filmstrip.rl.policies import Chooser, Scripted, scripted
from filmstrip.rl.recording import Episode, play, write_episodes
from filmstrip.runs.config import Run
from filmstrip.runs.contents import is_run
from filmstrip.runs.loading import load_objective
from filmstrip.runs.outside import allow, import_allowed

if TYPE_CHECKING:
    from filmstrip.commands.rl import Play, Record

SCRIPTED: tuple[Scripted, ...] = ("expert", "random", "still")


def record(command: Record) -> None:
    """Record episodes and print their returns.

    Raises:
        UserError: the environment or the policy cannot be used, or the folder is not empty.
    """
    kind = next((each for each in SCRIPTED if each == command.policy), None)
    if kind is None and not is_run(command.policy):
        raise UserError(f"--policy {command.policy}: use {', '.join(SCRIPTED)}, or the run folder of an agent")
    agent, size = None, command.size
    if kind is None:
        agent, reads = agent_of(Path(command.policy))
        size = size or reads.env.size
    config = EnvironmentConfig(
        name=command.env, size=size or 32, action_repeat=command.action_repeat, max_steps=command.max_steps
    )
    environment = built(config)

    def begin(number: int) -> tuple[Chooser, float | None]:
        if agent is not None:
            return acting(agent, device_of(agent)), None
        assert kind is not None, "it was checked"
        quality = command.quality[number % len(command.quality)]
        rng = np.random.default_rng((command.seed + number, 7))
        return scripted(kind, rng, quality), quality if kind == "expert" else None

    notes = {"environment": asdict(config), "policy": command.policy}
    _write(begin, environment, command, notes)


def play_agent(command: Play) -> None:
    """Let an agent act, write its episodes and print their returns.

    Raises:
        UserError: the run is no agent, or the folder is not empty.
    """
    agent, described = acting_of(command.run)
    data, reads = described.data, described.data.reads
    if isinstance(reads, Experience):
        config = reads.env if command.env is None else replace(reads.env, name=command.env)
        environment = built(config) if command.env is not None else reads.make()
    elif command.env is None:
        raise UserError(f"{command.run} learnt from films: name an environment for it to act in (--env NAME)")
    else:
        config = acted_in(command.env, data)
        environment = built(config)
    memory = shown_task(agent, command.prompt, data)
    notes = {"environment": asdict(config), "policy": str(command.run)}
    _write(lambda number: (acting(agent, device_of(agent), memory), None), environment, command, notes)


def agent_of(run: Path) -> tuple[Objective, Experience]:
    """The agent of a run, and the experience that it learnt from.

    Raises:
        UserError: it is no agent.
    """
    objective, described = acting_of(run)
    if not isinstance(described.data.reads, Experience):
        raise UserError(f"{run} does not learn in environments: give a run of control.drq, dreamer or amp")
    return objective, described.data.reads


def acting_of(run: Path) -> tuple[Objective, Run]:
    """The agent of a run, and the run.

    Raises:
        UserError: it is no agent.
    """
    objective, described = load_objective(run)
    if not isinstance(objective, Agent):
        raise UserError(f"{run} does not act in environments: give a run of a system of control, such as control.drq")
    return objective, described


def built(config: EnvironmentConfig) -> Environment:
    """An environment whose name was typed, so that a person's own code may be imported."""
    if ":" in config.name:
        allow(config.name.partition(":")[0].partition(".")[0])
    return config.build(import_allowed)


def _write(
    begin: Callable[[int], tuple[Chooser, float | None]],
    environment: Environment,
    command: Record | Play,
    notes: Mapping[str, object],
) -> None:
    """Play episodes, each by what ``begin`` says for its number, write them, and print their returns."""

    def episodes() -> Iterator[Episode]:
        for number in range(command.episodes):
            choose, quality = begin(number)
            yield play(environment, choose, command.seed + number, quality)

    shown = tracked(episodes(), "playing", total=command.episodes)
    kept = write_episodes(shown, command.out, environment, best=command.best, notes=notes)
    values = np.array([one.value for one in kept])
    steps = sum(len(one.frames) - 1 for one in kept)
    crashed = f", {environment.crashes} crashes" if environment.crashes else ""
    print(
        f"{command.out}: {len(kept)} episodes, {steps} steps, return {values.mean():.4g} (standard deviation "
        f"{values.std():.4g}, {values.min():.4g} to {values.max():.4g}){crashed}"
    )
