"""``filmstrip rl``: environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from filmstrip.bounds import Count, EvenSize, NotEmpty, Seed, Share
from filmstrip.commands.arguments import leading
from filmstrip.commands.command import Command, RunFolder
from filmstrip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Record(Command):
    """Record episodes of an environment as videos, with the actions and true rewards beside them.

    The folder of a task's videos is a class of a collection: `--out experts/point` is read by `--data experts`.
    """

    usage = "--env NAME --out FOLDER [--policy expert|random|still|RUN] [--episodes N] [options]"
    env: str
    """Name of the environment: point, orbit, reach/TASK/LOOK, pick/TASK/LOOK, pong or push; an id of Gymnasium
    (ALE/Pong-v5, MiniGrid-Empty-8x8-v0); dm_control/DOMAIN-TASK; or module:Class of your own."""
    out: Path
    """Folder to write: 00000.mp4 and so on, their actions and rewards, and manifest.csv with their returns."""
    policy: str = "expert"
    """Policy that acts: expert (of own environments), random, still, or the run folder of an agent."""
    quality: Annotated[tuple[Share, ...], NotEmpty] = (1.0,)
    """Qualities of the expert, which episodes take in turn: the probability of its action instead of a random one."""
    episodes: Count = 10
    """Number of episodes that are played."""
    best: Count | None = None
    """Number of episodes that are kept, those of the highest returns; by default all."""
    size: EvenSize | None = None
    """Height and width of pictures, pixels; by default 32, or that of the agent."""
    action_repeat: Count = 1
    """Number of the environment's own steps that one action lasts."""
    max_steps: Count | None = None
    """Largest number of actions in an episode; by default the environment's own limit."""
    seed: Seed = 0
    """Seed of the first episode; the next ones follow."""

    def __call__(self) -> None:
        from filmstrip.commands.work.rl import record

        record(self)


@dataclass(frozen=True, kw_only=True)
class Play(Command):
    """Let a trained agent act in its environment, and write its episodes as `record` does."""

    usage = "RUN --out FOLDER [--episodes N] [--env NAME] [options]"
    run: RunFolder
    """Run folder of an agent (control.drq), or of a policy that is shown its task (control.vid2robot)."""
    out: Path
    """Folder to write: 00000.mp4 and so on, their actions and true rewards, and manifest.csv with their returns."""
    episodes: Count = 10
    """Number of episodes that are played."""
    best: Count | None = None
    """Number of episodes that are kept, those of the highest returns; by default all."""
    env: str | None = None
    """Name of another environment with the same actions; needed again for module:Class of your own, and of a policy
    that learnt from films alone."""
    prompt: Path | None = None
    """Film that shows what to do, for an agent that is shown its task (control.vid2robot)."""
    seed: Seed = 50_000
    """Seed of the first episode; the next ones follow."""

    def __call__(self) -> None:
        from filmstrip.commands.work.rl import play_agent

        play_agent(self)


@dataclass(frozen=True, kw_only=True)
class RL(Command):
    """Record episodes of an environment, by scripted experts or trained agents.

    filmstrip rl record --env NAME --out FOLDER [--policy expert|random|still|RUN]
    filmstrip rl play RUN --out FOLDER
    """

    actions: ClassVar[dict[str, type[Command]]] = {"record": Record, "play": Play}
    usage = "record|play ..."
    action: Command

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        name, arguments = leading(cls, arguments, prog, "record or play")
        if name not in cls.actions:
            raise UserError(f"{prog} {name} does not exist: use {' or '.join(cls.actions)}")
        return cls(action=cls.actions[name].parse(arguments, f"{prog} {name}"))

    def __call__(self) -> int | None:
        return self.action()
