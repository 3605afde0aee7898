"""Films of scripted experts in own environments, as synthetic sets: a class for each environment; and of two arms, of
which one shows what the other is to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from filmstrip.bounds import Count, CountOrZero, EvenSize, NotEmpty, Seed, Share, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once
from filmstrip.progress import tracked
from filmstrip.rl.envs.environment import EnvironmentConfig
from filmstrip.rl.policies import scripted
from filmstrip.rl.recording import MANIFEST, NOTES, Episode, play, write_episodes

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ExpertFilms(Synthetic):
    """Videos of an expert in environments of this package, as ``filmstrip rl record`` writes them.

    Beside each video lie its actions and true rewards (``NAME.actions.npz``), which rewards by likelihood never see.
    """

    environments: Annotated[tuple[str, ...], NotEmpty] = ("point",)
    """Names of the environments, each of which is a class."""
    quality: Share = 0.9
    """Probability of the expert's action instead of a random one."""
    num_train: Count = 50
    """Number of training episodes of each environment."""
    num_test: CountOrZero = 10
    size: EvenSize = 32
    max_steps: Count | None = None
    """Largest number of actions in an episode; by default the environment's own limit."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set as ``split/class/*.mp4`` in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else, or there is no such environment.
        """
        notes = {"directional": True, "environments": list(self.environments)}
        return generate_once(self, name="expert_films", version=VERSION, notes=notes, write=self._write, out=out)

    def environment(self, name: str) -> EnvironmentConfig:
        """The configuration of one of the environments."""
        return EnvironmentConfig(name=name, size=self.size, max_steps=self.max_steps)

    def _write(self, folder: Path) -> None:
        self.write_named(folder, {name: name.replace("/", "_") for name in self.environments})

    def write_named(self, folder: Path, classes: Mapping[str, str]) -> None:
        """Write the videos of environments as ``split/class/*.mp4``, the classes by the environments' names."""
        for split, count in (("train", self.num_train), ("test", self.num_test)):
            for name, called in classes.items():
                environment = self.environment(name).build()
                out = folder / split / called
                episodes = self._episodes(name, count, first=0 if split == "train" else 1_000_000)
                write_episodes(tracked(episodes, f"playing {name}", total=count), out, environment)
                (out / MANIFEST).unlink()  # of this set: it is read by its folders
                (out / NOTES).unlink()

    def _episodes(self, name: str, count: int, first: int) -> Iterator[Episode]:
        environment = self.environment(name).build()
        for number in range(first, first + count):
            rng = np.random.default_rng((self.seed, number, 7))
            yield play(
                environment,
                scripted("expert", rng, self.quality),
                self.seed + number,
                self.quality,
            )


@dataclass(frozen=True, kw_only=True)
class PromptedFilms(Synthetic):
    """Videos of two arms at the same tasks, a class for each: ``robot``, with its actions, and ``prompts``, of an arm
    that looks otherwise, in other scenes (:class:`~filmstrip.data.kinds.prompted.Prompted`)."""

    environment: str = "pick"
    """Name of the environment without its task and look."""
    tasks: Annotated[tuple[str, ...], NotEmpty] = ("right", "down", "left", "up")
    robot: str = "steel"
    """Look of the arm that acts."""
    prompts: str = "orange"
    """Look of the arm that shows the task."""
    quality: Share = 0.8
    """Probability of the expert's action instead of a random one, of the arm that acts; the other is an expert."""
    num_train: Count = 60
    """Number of training episodes of each arm at each task."""
    num_test: CountOrZero = 5
    size: EvenSize = 32
    max_steps: Count | None = None
    """Largest number of actions in an episode; by default the environment's own limit."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set as ``robot/split/task/*.mp4`` and ``prompts/split/task/*.mp4`` in ``out`` or in the cache,
        unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else, or there is no such environment.
        """
        notes = {"directional": True, "environment": self.environment}
        return generate_once(self, name="prompted_films", version=VERSION, notes=notes, write=self._write, out=out)

    def name_of(self, task: str) -> str:
        """The environment in which the robot does a task."""
        return f"{self.environment}/{task}/{self.robot}"

    def _write(self, folder: Path) -> None:
        for part, look, quality, apart in (
            ("robot", self.robot, self.quality, 0),
            ("prompts", self.prompts, 1.0, 500_000),
        ):
            for place, task in enumerate(self.tasks):
                # Seeds of their own: a scene that were shared would tell which films belong together.
                films = ExpertFilms(
                    environments=(f"{self.environment}/{task}/{look}",),
                    quality=quality,
                    num_train=self.num_train,
                    num_test=self.num_test,
                    size=self.size,
                    max_steps=self.max_steps,
                    seed=self.seed + apart + 10_000 * place,
                )
                films.write_named(folder / part, {films.environments[0]: task})
