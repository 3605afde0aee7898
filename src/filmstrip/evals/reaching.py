"""Reaching goals: whether actions that a world model plans lead to what a goal image shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count, Rate, Seed
from filmstrip.data.config import Data
from filmstrip.data.synthetic.pushing import GRIPPER, MARGIN, ROUND, SPEED, Table
from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.protocols import GoalPlanner
from filmstrip.runs.evaluation import Evaluation, Subject

Chooser = Callable[[list["Episode"], int], np.ndarray]
"""Actions ``B 2`` in so many episodes at a step."""
ACTION_DIM = 2


@dataclass
class Episode:
    """A table, and how it is to look."""

    table: Table
    goal: Tensor
    """Image of the goal, ``3 H W`` uint8."""
    target: np.ndarray
    """Position (x, y) of the gripper in it, or of the thing that is to be pushed."""
    thing: int | None = None
    """Number of that thing; None where the gripper is to reach the target."""
    path: tuple[np.ndarray, ...] = ()
    """Actions that lead to the goal."""

    @property
    def distance(self) -> float:
        """How far it is from the target, in sides of the frame."""
        place = self.table.gripper if self.thing is None else self.table.things[self.thing, :2]
        return float(np.linalg.norm(place - self.target))


@dataclass(frozen=True, kw_only=True)
class Reaching(Evaluation):
    """Success in reaching goal images on tables of the synthetic set ``pushing``, which training did not see.

    ``reach``: the goal shows the gripper elsewhere; ``push``: a thing that stands beside the gripper has been pushed
    away. Beside the planner, actions at random and the true way to the goal are measured on the same tables.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    task: Literal["reach", "push"] = "reach"
    """Task: the gripper, or a thing, at the place that the goal shows."""
    episodes: Count = 20
    """Number of tables."""
    steps: Count = 10
    """Number of actions in an episode."""
    taken: Count = 1
    """Number of actions taken of a plan before the next one is made."""
    tolerance: Rate = GRIPPER
    """Largest distance from the goal's place at the end that counts as success, in sides of the frame."""
    num_things: Count = 2
    """Number of things on a table."""
    look: Seed | None = None
    """Seed of how tables and things look, as of the set ``pushing``; by default every table has a look of its own."""
    arm_width: Rate = 1.0
    """Width of the arm, as a multiple of the one in the set ``pushing``."""
    seed: Seed = 10_000
    """Seed of the first table; the next ones follow."""

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """None: tables are drawn here."""
        return ()

    def check(self, subject: Subject) -> None:
        """The objective plans towards images with the actions of this set."""
        planner = subject.objective
        if not isinstance(planner, GoalPlanner):
            raise UserError(
                f"{type(planner).__name__} does not plan actions towards an image: this evaluation needs a run of "
                "control.vjepa_ac"
            )
        given = getattr(planner, "action_dim", ACTION_DIM), planner.state_dim
        if given[0] != ACTION_DIM or given[1] not in (0, ACTION_DIM):
            raise UserError(
                f"tables are acted on by {ACTION_DIM} numbers, from a state of {ACTION_DIM}, and the run was trained "
                f"with {given[0]} and {given[1]}: train it on the set `pushing`"
            )

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield the success rate and the mean final distance of the planner, of random actions, and of the true way.

        Raises:
            UserError: see :meth:`check`.
        """
        self.check(subject)
        size = subject.data.clip.size
        choosers = {"": self._planner(subject), "random_": self._random, "true_way_": self._true_way}
        for name, choose in choosers.items():
            distances = self.run(size, choose)
            yield f"{name}success_rate", float((distances <= self.tolerance).mean())
            yield f"{name}distance", float(distances.mean())

    def run(self, size: int, choose: Chooser) -> np.ndarray:
        """Final distances of all episodes, with frames of ``size`` pixels."""
        episodes = [self.episode(self.seed + i, size) for i in range(self.episodes)]
        for step in range(self.steps):
            for episode, action in zip(episodes, choose(episodes, step)):
                episode.table.step(action)
        return np.array([episode.distance for episode in episodes])

    def episode(self, seed: int, size: int) -> Episode:
        """A table and its goal, which a few actions reach."""
        table = Table(seed, num_things=self.num_things, size=size, look=self.look, arm_width=self.arm_width)
        rng = np.random.default_rng((seed, 1))
        before = table.state_dict()
        if self.task == "reach":
            far = rng.uniform(0.5, 0.8) * self.steps * SPEED
            target = _place_at(rng, table.gripper, far)
            table.gripper = target
            episode = Episode(table, table.frame(), target)
        else:
            thing = int(rng.integers(self.num_things))
            path = _push(rng, table, thing, self.steps)
            before = path[0]
            episode = Episode(table, table.frame(), table.things[thing, :2].copy(), thing, path[1])
        table.load_state_dict(before)
        return episode

    def _random(self, episodes: list[Episode], step: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, step, 2))
        return rng.uniform(-1, 1, (len(episodes), ACTION_DIM))

    def _true_way(self, episodes: list[Episode], step: int) -> np.ndarray:
        if self.task == "push":
            return np.stack([one.path[step] if step < len(one.path) else np.zeros(2) for one in episodes])
        return np.stack([np.clip((one.target - one.table.gripper) / SPEED, -1, 1) for one in episodes])

    def _planner(self, subject: Subject) -> Chooser:
        objective = subject.objective
        assert isinstance(objective, GoalPlanner), "it was checked"
        plan, plans = objective.plan_actions, list[np.ndarray]()

        def choose(episodes: list[Episode], step: int) -> np.ndarray:
            nonlocal plans
            if not plans:
                frames = torch.stack([one.table.frame() for one in episodes]).to(subject.device)
                goals = torch.stack([one.goal for one in episodes]).to(subject.device)
                state = torch.from_numpy(np.stack([one.table.gripper for one in episodes])).float()
                with inference(objective):
                    found = plan(frames, goals, state.to(subject.device), seed=self.seed + 1000 * step)
                plans = list(found[:, : self.taken].transpose(0, 1).cpu().numpy())
            return plans.pop(0)

        return choose


def _place_at(rng: np.random.Generator, place: np.ndarray, far: float) -> np.ndarray:
    """A place on the table about ``far`` away."""
    angle = rng.uniform(0, 2 * np.pi)
    for turn in range(36):
        way = np.array([np.cos(angle + turn * np.pi / 18), np.sin(angle + turn * np.pi / 18)])
        target = place + far * way
        if ((target > 2 * MARGIN) & (target < 1 - 2 * MARGIN)).all():
            return target
    return np.clip(place + far * way, 2 * MARGIN, 1 - 2 * MARGIN)


def _push(
    rng: np.random.Generator, table: Table, thing: int, steps: int
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, ...]]:
    """Put the gripper beside a thing and push this towards the middle of the table: the state before, and the actions
    with which the table ends as its goal shows it."""
    place = table.things[thing, :2]
    towards = np.array([0.5, 0.5]) + rng.uniform(-0.15, 0.15, 2) - place
    towards /= max(1e-6, float(np.linalg.norm(towards)))
    apart = ROUND * table.radii[thing] + GRIPPER
    table.gripper = np.clip(place - 1.1 * apart * towards, MARGIN, 1 - MARGIN)
    before = table.state_dict()
    actions = tuple(towards for _ in range(min(steps, 5)))
    for action in actions:
        table.step(action)
    return before, actions
