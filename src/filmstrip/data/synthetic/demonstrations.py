"""Demonstrations: tasks on the table of ``pushing``, and videos of an expert that knows where everything is.

A task is solved by what is seen in one frame: the thing to be touched, or to be pushed to the middle, is the only one
on the table. The expert sees the table's state; who learns from it sees pictures, and where the gripper is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from filmstrip.bounds import Count, CountOrZero, EvenSize, Rate, Seed, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import NOTES, generate_once, seeded_paths, write_videos
from filmstrip.data.synthetic.pushing import GRIPPER, ROUND, SPEED, Table
from filmstrip.errors import UserError
from filmstrip.video.write import write_video

MIDDLE = np.array([0.5, 0.5])
BEHIND = 0.03
"""Distance of the gripper from a thing while it goes around it, sides of the frame."""
BESIDE = math.radians(20)
"""Largest angle at the thing, between the gripper and the place behind it, at which the expert pushes."""
TURN = math.radians(35)
"""Angle around a thing that the expert aims at in one step."""
ACTION_DIM = 2
VERSION = 1

Chooser = Callable[[Sequence["Episode"], int], np.ndarray]
"""Actions ``B 2`` in so many episodes at a step."""


@dataclass(frozen=True, kw_only=True)
class TableTask:
    """What is to be done on a table, and how tables look."""

    goal: Literal["touch", "push"] = "push"
    """Goal: the gripper at the thing, or the thing in the middle of the table."""
    steps: Count = 30
    """Number of actions in an episode."""
    tolerance: Rate = 0.08
    """Largest distance of the thing from the middle (of the gripper from the thing's edge) at the end that counts as
    success, in sides of the frame."""
    look: Seed | None = 5
    """Seed of how table and thing look, as of the set ``pushing``; none for another look in each episode."""
    arm_width: Rate = 1.0
    """Width of the arm, as a multiple of the one in the set ``pushing``."""

    def begin(self, seed: int | tuple[int, ...], size: int) -> Episode:
        """An episode that depends on its seed alone, with frames of ``size`` pixels; it is not solved yet."""
        for attempt in range(100):
            own = (*((seed,) if isinstance(seed, int) else seed), attempt)
            episode = Episode(self, Table(own, num_things=1, size=size, look=self.look, arm_width=self.arm_width))
            if episode.distance > 1.5 * self.tolerance:
                break
        return episode


@dataclass
class Episode:
    """A task on a table."""

    task: TableTask
    table: Table

    @property
    def distance(self) -> float:
        """Distance that is left, in sides of the frame."""
        thing = self.table.things[0, :2]
        if self.task.goal == "push":
            return float(np.linalg.norm(thing - MIDDLE))
        return float(np.linalg.norm(thing - self.table.gripper)) - self._contact

    @property
    def solved(self) -> bool:
        """Whether the table is as it should be at the end."""
        return self.distance <= self.task.tolerance

    @property
    def _contact(self) -> float:
        """Distance of the gripper from the thing's middle where they touch."""
        return float(ROUND * self.table.radii[0]) + GRIPPER

    def expert(self) -> np.ndarray:
        """The expert's action now: right and down, of length 1 at most."""
        aim = self._aim()
        return np.zeros(ACTION_DIM) if aim is None else _towards(self.table.gripper, aim)

    def _aim(self) -> np.ndarray | None:
        """Where the expert wants the gripper to be; none where it is to stay."""
        thing, gripper = self.table.things[0, :2], self.table.gripper
        if self.task.goal == "touch":
            return None if self.distance <= 0.01 else thing
        if self.distance <= 0.02:
            return None
        way = (MIDDLE - thing) / self.distance
        aside = gripper - thing
        turn = _angle(aside, -way)
        if abs(turn) <= BESIDE and np.linalg.norm(aside) < self._contact + 3 * BEHIND:
            return MIDDLE - (self._contact - 0.01) * way
        # Around the thing, no faster than it can be passed at a distance.
        angle = math.atan2(aside[1], aside[0]) + float(np.clip(turn, -TURN, TURN))
        reach = self._contact + BEHIND
        return thing + reach * np.array([math.cos(angle), math.sin(angle)])


def _towards(place: np.ndarray, aim: np.ndarray) -> np.ndarray:
    step = (aim - place) / SPEED
    return step / max(1.0, float(np.linalg.norm(step)))


def _angle(start: np.ndarray, end: np.ndarray) -> float:
    """Angle from one direction to another, -pi to pi."""
    return math.atan2(start[0] * end[1] - start[1] * end[0], float(start @ end))


def expert(episodes: Sequence[Episode], step: int) -> np.ndarray:
    """What the expert does in each episode."""
    return np.stack([episode.expert() for episode in episodes])


def at_random(seed: int) -> Chooser:
    """Actions drawn evenly from -1 to 1."""

    def choose(episodes: Sequence[Episode], step: int) -> np.ndarray:
        return np.random.default_rng((seed, step)).uniform(-1, 1, (len(episodes), ACTION_DIM))

    return choose


ROWS = ("actions", "gripper", "things", "expert")
"""Arrays of a sidecar, a row for each frame; ``expert`` is what the expert does next."""


class Recording:
    """What happens in an episode, to be written as a video with its sidecar."""

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.rows: dict[str, list[np.ndarray]] = {key: [] for key in ROWS}

    def note(self, action: np.ndarray) -> None:
        """Add the state now, the ``action`` that led to it, and what the expert would do."""
        table = self.episode.table
        for key, value in zip(ROWS, (action, table.gripper, table.things, self.episode.expert()), strict=True):
            self.rows[key].append(np.array(value))

    def write(self, path: Path, fps: int) -> None:
        """Write the video and, beside it, ``NAME.actions.npz``."""
        rows = {key: np.stack(values) for key, values in self.rows.items()}
        video = self.episode.table.film(rows["gripper"], rows["things"])
        write_video(path, video, fps, crf=12, gop=8, preset="veryfast")
        arrays: dict[str, Any] = {key: value.astype(np.float32) for key, value in rows.items()}
        np.savez(path.with_suffix(".actions.npz"), **arrays)


def play(episodes: Sequence[Episode], choose: Chooser) -> list[Recording]:
    """Act in all episodes until their ends, in place; what happened in each."""
    recordings = [Recording(episode) for episode in episodes]
    actions = np.zeros((len(episodes), ACTION_DIM))
    for step in range(episodes[0].task.steps):
        for recording, action in zip(recordings, actions):
            recording.note(action)
        actions = np.clip(choose(episodes, step), -1, 1)
        for episode, action in zip(episodes, actions):
            episode.table.step(action)
    for recording, action in zip(recordings, actions):
        recording.note(action)
    return recordings


@dataclass(frozen=True, kw_only=True)
class Demonstrations(Synthetic):
    """Videos of an expert that solves a task on a table.

    Beside each video lies ``NAME.actions.npz``: ``actions`` (``T 2``, right and down, each -1 to 1, that led to each
    frame), ``gripper`` (``T 2``), ``things`` (``T 1 3``) and ``expert`` (``T 2``, what the expert does next).
    """

    task: TableTask = field(default_factory=TableTask)
    num_train: Count = 100
    num_test: CountOrZero = 20
    fps: Count = 10
    size: EvenSize = 64
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set as ``split/*.mp4`` in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        return generate_once(
            self, name="demonstrations", version=VERSION, notes=notes_of(self.task), write=self._write, out=out
        )

    def _write(self, folder: Path) -> None:
        counts = {"train": self.num_train, "test": self.num_test}
        write_videos(self._write_one, seeded_paths(folder, counts, self.seed))

    def _write_one(self, path: Path, seed: tuple[int, ...]) -> None:
        [recording] = play([self.task.begin(seed, self.size)], expert)
        recording.write(path, self.fps)


def notes_of(task: TableTask) -> dict[str, Any]:
    """The entries of ``dataset.json`` for videos of a task."""
    return {"directional": True, "action_dim": ACTION_DIM, "task": asdict(task)}


def task_in(folder: Path) -> TableTask | None:
    """The task that the videos in a folder show; none where its ``dataset.json`` does not say.

    Raises:
        UserError: it says something else under that name.
    """
    try:
        told = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        task = told.get("task") if isinstance(told, dict) else None
    except (OSError, ValueError):
        return None
    if task is None:
        return None
    try:
        found = TableTask(**task)
        check_numbers(found)
    except TypeError:
        raise UserError(f'{folder / NOTES}: "task" is no task of the set `demonstrations`: {task!r}') from None
    return found
