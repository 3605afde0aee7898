"""Success: the share of episodes of a task that a policy solves, acting on what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from filmstrip.bounds import Count, Seed
from filmstrip.data.config import Data
from filmstrip.data.sample import Source
from filmstrip.data.synthetic.demonstrations import (
    ACTION_DIM,
    Chooser,
    Demonstrations,
    Episode,
    TableTask,
    at_random,
    expert,
    play,
    task_in,
)
from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.measure.interval import binomial_interval
from filmstrip.protocols import Objective, Policy
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Success(Evaluation):
    """Share of episodes that are solved at their ends, with its exact 95% interval (Clopper and Pearson).

    Episodes are tables that training did not see. Beside the policy, the expert of the demonstrations and actions at
    random act on the same tables.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    episodes: Count = 50
    """Number of episodes."""
    task: TableTask | None = None
    """Task, and how its tables look; by default that of the demonstrations in the run's data."""
    seed: Seed = 20_000
    """Seed of the first episode; the next ones follow."""

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """None: tables are drawn here."""
        return ()

    def check(self, subject: Subject) -> None:
        """The objective acts, with the actions of this table, and the task is known."""
        policy_of(subject.objective)
        task_of(subject.source, subject.data, self.task)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield the success rate with its interval and the mean distance that is left; of the policy, the expert
        (``expert_``) and actions at random (``random_``).

        Raises:
            UserError: see :meth:`check`.
        """
        task, size = task_of(subject.source, subject.data, self.task), subject.data.clip.size
        choosers = {"": acting(subject.objective, subject.device), "expert_": expert, "random_": at_random(self.seed)}
        for name, choose in choosers.items():
            episodes = [task.begin(self.seed + i, size) for i in range(self.episodes)]
            play(episodes, choose)
            solved = sum(episode.solved for episode in episodes)
            low, high = binomial_interval(solved, self.episodes)
            yield f"{name}success_rate", solved / self.episodes
            yield f"{name}success_low", low
            yield f"{name}success_high", high
            yield f"{name}distance", float(np.mean([episode.distance for episode in episodes]))


def acting(objective: Objective, device: torch.device) -> Chooser:
    """What a policy does in episodes: it sees a frame of each, and is told where the gripper is if it needs a state.

    Raises:
        UserError: the objective is no policy for tables.
    """
    policy = policy_of(objective)

    def choose(episodes: Sequence[Episode], step: int) -> np.ndarray:
        frames = torch.stack([one.table.frame() for one in episodes]).to(device)
        state = torch.from_numpy(np.stack([one.table.gripper for one in episodes])).float().to(device)
        with inference(objective):
            return policy.act(frames, state if policy.state_dim else None).float().cpu().numpy()

    return choose


def policy_of(objective: Objective) -> Policy:
    """The objective as a policy for tables.

    Raises:
        UserError: it does not act, or has other actions or states.
    """
    if not isinstance(objective, Policy):
        raise UserError(
            f"{type(objective).__name__} does not act on what it sees: this evaluation needs a run of "
            "control.behaviour_cloning"
        )
    given = objective.action_dim, objective.state_dim
    if given[0] != ACTION_DIM or given[1] not in (0, ACTION_DIM):
        raise UserError(
            f"tables are acted on by {ACTION_DIM} numbers, with a state of {ACTION_DIM} or none, and the run was "
            f"trained with {given[0]} and {given[1]}: train it on the set `demonstrations`"
        )
    return objective


def task_of(source: Source, data: Data, given: TableTask | None = None) -> TableTask:
    """The task that is given, or else that of the demonstrations which a run reads.

    Raises:
        UserError: neither says what the task is.
    """
    if given is not None:
        return given
    if data.path is None and not data.mixture and isinstance(data.synthetic, Demonstrations):
        return data.synthetic.task
    if (found := task_in(source.root)) is not None:
        return found
    raise UserError(
        f"{source.root} does not say what the task is, as what `filmstrip data make demonstrations` writes does: "
        "name it (--task.goal touch or push)"
    )
