"""True returns of an agent in its environment, beside those of chance and, where there is one, of an expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.protocols import Agent, Objective
from filmstrip.rl.envs.environment import Environment
from filmstrip.rl.experience import Experience
from filmstrip.rl.policies import Chooser, scripted
from filmstrip.rl.recording import Episode, play
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Returns(Evaluation):
    """Mean true return of an agent that does its best, of actions at random, and of the environment's expert.

    Episodes are others than those of training. That an agent's own reward goes up says nothing, for it is what
    training maximises: this is measured whatever the agent was rewarded by.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    episodes: Count = 10
    """Number of episodes."""
    seed: Seed = 40_000
    """Seed of the first episode; the next ones follow."""

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """None: episodes are played here."""
        return ()

    def check(self, subject: Subject) -> None:
        """The objective acts, and its data are an environment."""
        if not isinstance(subject.objective, Agent):
            raise UserError(f"{type(subject.objective).__name__} does not act in environments")
        if not isinstance(subject.data.reads, Experience):
            raise UserError(f"{subject.source.root} is no environment: an agent is evaluated in one")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``return`` with its standard error, ``random_return`` and, of own environments, ``expert_return``.

        Raises:
            UserError: see :meth:`check`.
        """
        self.check(subject)
        assert isinstance(subject.data.reads, Experience), "it was checked"
        environment = subject.data.reads.make()
        try:
            own = [one.value for one in self.played(subject.objective, environment, subject.device)]
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

    def played(self, objective: Objective, environment: Environment, device: torch.device) -> Iterator[Episode]:
        """The episodes of an agent."""
        for number in range(self.episodes):
            yield play(environment, acting(objective, device), self.seed + number)


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
