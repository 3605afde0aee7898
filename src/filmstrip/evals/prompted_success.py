"""Success of a policy that is shown its task by a film: in scenes where only the film says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from filmstrip.bounds import Count, Seed
from filmstrip.data.config import Data
from filmstrip.data.kinds.prompted import PromptedSample, whole_film
from filmstrip.errors import UserError
from filmstrip.evals.returns import acting, remembered
from filmstrip.measure.interval import binomial_interval
from filmstrip.protocols import PromptedAgent
from filmstrip.rl.envs.environment import EnvironmentConfig
from filmstrip.rl.films import PromptedFilms
from filmstrip.rl.policies import Chooser, scripted
from filmstrip.rl.recording import play
from filmstrip.runs.evaluation import Evaluation, Subject

SOLVED = 0.5
"""True reward of the last step from which on an episode counts as solved."""


@dataclass(frozen=True, kw_only=True)
class PromptedSuccess(Evaluation):
    """Share of episodes whose last step earns half of the most or more, with its exact 95% interval.

    Each task has the same scenes, which training did not see, and prompts of the split for evaluation. Beside the
    policy, an expert of the task and actions at random act in them, and the policy as it is shown another task
    (``wrong_success_rate``), which says how far it goes by the prompt.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    episodes: Count = 10
    """Number of episodes of each task."""
    seed: Seed = 60_000
    """Seed of the first scene; the next ones follow."""

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """That of the prompts."""
        return (data.eval_split,)

    def check(self, subject: Subject) -> None:
        """The objective acts on prompts, and the data say in which environments."""
        if not isinstance(subject.objective, PromptedAgent):
            raise UserError(
                f"{type(subject.objective).__name__} is shown no task by a film: this evaluation needs a run of "
                "control.vid2robot"
            )
        films_of(subject.data)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield success rates with their intervals, of the policy, the expert (``expert_``), actions at random
        (``random_``) and the policy after a prompt of the next task (``wrong_``).

        Raises:
            UserError: see :meth:`check`.
        """
        self.check(subject)
        films = films_of(subject.data)
        prompts = self._prompts(subject, films.tasks)
        count = self.episodes * len(films.tasks)
        for kind in ("", "wrong_", "expert_", "random_"):
            solved = 0
            for place, task in enumerate(films.tasks):
                own = films.tasks[(place + 1) % len(films.tasks)] if kind == "wrong_" else task
                solved += self._solved(subject, films, task, prompts[own], kind)
            low, high = binomial_interval(solved, count)
            yield f"{kind}success_rate", solved / count
            yield f"{kind}success_low", low
            yield f"{kind}success_high", high

    def _solved(
        self, subject: Subject, films: PromptedFilms, task: str, prompts: Sequence[torch.Tensor], kind: str
    ) -> int:
        """How many episodes of a task are solved."""
        config = EnvironmentConfig(name=films.name_of(task), size=films.size, max_steps=films.max_steps)
        environment, solved = config.build(), 0
        for number in range(self.episodes):
            choose: Chooser
            if kind in ("", "wrong_"):
                memory = remembered(subject.objective, prompts[number % len(prompts)])
                choose = acting(subject.objective, subject.device, memory)
            else:
                rng = np.random.default_rng((self.seed, number))
                choose = scripted("expert" if kind == "expert_" else "random", rng)
            solved += play(environment, choose, self.seed + number).rewards[-1] >= SOLVED
        environment.close()
        return solved

    def _prompts(self, subject: Subject, tasks: Sequence[str]) -> dict[str, list[torch.Tensor]]:
        """Up to as many films of each task as there are episodes."""
        found: dict[str, list[torch.Tensor]] = {}
        for sample in subject.source.split(subject.data.eval_split):
            if isinstance(sample, PromptedSample) and sample.task not in found:
                paths = sample.prompts[: self.episodes]
                found[sample.task] = [whole_film(path, sample.reads.prompt_frames, subject.data) for path in paths]
        if missing := [task for task in tasks if task not in found]:
            raise UserError(f"{subject.source.root} has no prompts of {', '.join(missing)} to evaluate with")
        return found


def films_of(data: Data) -> PromptedFilms:
    """The set whose environments the tasks of a run are in.

    Raises:
        UserError: the run has films of its own, whose tasks are no environments here.
    """
    if not isinstance(data.synthetic, PromptedFilms) or data.path is not None:
        raise UserError(
            "success is measured in the environments of the set that `control.vid2robot:pick` learns from, and the "
            "run has films of its own: play it (filmstrip rl play RUN --env NAME --prompt FILM)"
        )
    return data.synthetic
