"""True returns of an agent in its environment, beside those of chance and, where there is one, of an expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.data.config import Data
from filmstrip.data.kinds.prompted import whole_film
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import Agent, Objective, PromptedAgent
from filmstrip.rl.envs.environment import Environment, EnvironmentConfig
from filmstrip.rl.experience import Experience
from filmstrip.rl.policies import Chooser, scripted
from filmstrip.rl.recording import Episode, play
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.video.decoder import DecodeError


@dataclass(frozen=True, kw_only=True)
class Returns(Evaluation):
    """Mean true return of an agent that does its best, of actions at random, and of the environment's expert.

    Episodes are others than those of training. That an agent's own reward goes up says nothing, for it is what
    training maximises: this is measured whatever the agent was rewarded by. A policy that learnt from films acts in
    ``env``, after the film ``prompt`` if one shows it its task.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    episodes: Count = 10
    """Number of episodes."""
    seed: Seed = 40_000
    """Seed of the first episode; the next ones follow."""
    env: str | None = None
    """Name of the environment, for a policy that learnt from films; an agent's is its own."""
    prompt: Path | None = None
    """Film that shows what to do, for a policy that is shown its task (control.vid2robot)."""

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """None: episodes are played here."""
        return ()

    def check(self, subject: Subject) -> None:
        """The objective acts, and its data are an environment."""
        if not isinstance(subject.objective, Agent):
            raise UserError(f"{type(subject.objective).__name__} does not act in environments")
        if isinstance(subject.data.reads, Experience):
            if self.env is not None:
                raise UserError("an agent is evaluated in the environment that it learns in: leave out --env")
        elif self.env is None:
            raise UserError(
                f"{subject.source.root} is no environment: name one for a policy that learnt from films (--env NAME)"
            )
        shown_task(subject.objective, self.prompt, subject.data)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``return`` with its standard error, ``random_return`` and, of own environments, ``expert_return``.

        Raises:
            UserError: see :meth:`check`.
        """
        self.check(subject)
        reads, data = subject.data.reads, subject.data
        if isinstance(reads, Experience):
            environment = reads.make()
        else:
            environment = acted_in(self.env or "", data).build()
        try:
            own = [one.value for one in self.played(subject, environment)]
            yield f"return/n{self.episodes}", float(np.mean(own))
            yield f"return_error/n{self.episodes}", float(np.std(own) / np.sqrt(len(own)))
            for kind in ("random", "expert") if environment.own is not None else ("random",):
                values = []
                for number in range(self.episodes):
                    rng = np.random.default_rng((self.seed, number))
                    values.append(play(environment, scripted(kind, rng), self.seed + number).value)
                yield f"{kind}_return", float(np.mean(values))
        finally:
            environment.close()

    def played(self, subject: Subject, environment: Environment) -> Iterator[Episode]:
        """The episodes of an agent."""
        memory = shown_task(subject.objective, self.prompt, subject.data)
        for number in range(self.episodes):
            yield play(environment, acting(subject.objective, subject.device, memory), self.seed + number)


def acted_in(name: str, data: Data) -> EnvironmentConfig:
    """An environment for a policy that learnt from films, with pictures of the size of clips."""
    return EnvironmentConfig(name=name, size=data.clip.size)


def shown_task(objective: Objective, prompt: Path | None, data: Data) -> dict[str, Tensor] | None:
    """What an agent remembers of a film that shows its task; nothing of one that is shown none.

    Raises:
        UserError: a film is missing, cannot be read, or is of no use to the agent.
    """
    if not isinstance(objective, PromptedAgent):
        if prompt is not None:
            raise UserError(f"{type(objective).__name__} is shown no task by a film: leave out --prompt")
        return None
    if prompt is None:
        raise UserError(f"{type(objective).__name__} does what a film shows: give one (--prompt FILM)")
    try:
        film = whole_film(prompt, objective.prompt_frames, data)
    except (DecodeError, OSError) as error:
        raise UserError(f"--prompt {prompt} cannot be read: {error}") from None
    return remembered(objective, film)


def remembered(objective: Objective, film: Tensor) -> dict[str, Tensor]:
    """What an agent remembers of a film ``P 3 H W`` that shows its task."""
    assert isinstance(objective, PromptedAgent), "it was checked"
    with inference(objective):
        shown = objective.prompted(film[None].to(device_of(objective)))
    return {key: value.clone() for key, value in shown.items()}


def acting(objective: Objective, device: torch.device, memory: dict[str, Tensor] | None = None) -> Chooser:
    """What an agent does in one episode, from its first frame on, at its best; ``memory`` is what it was shown before
    (:class:`~filmstrip.protocols.PromptedAgent`)."""
    assert isinstance(objective, Agent), "it was checked"
    begins = True

    def choose(environment: Environment, frame: np.ndarray) -> object:
        nonlocal memory, begins
        first, begins = torch.tensor([begins], device=device), False
        seen = torch.from_numpy(frame)[None].to(device)
        with inference(objective):
            action, memory = objective.decide(seen, memory, first, seed=None)
        return int(action[0]) if environment.actions.discrete else action[0].float().cpu().numpy()

    return choose
