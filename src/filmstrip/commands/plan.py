"""``filmstrip plan``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import AnyNumber, Count, Seed
from filmstrip.commands.command import Command, RunFolder


@dataclass(frozen=True, kw_only=True)
class Plan(Command):
    """Plan what leads from a start to a goal, each shown in a video or an image: steps, or actions of an arm.

    A run of procedures plans steps. A world model (control.vjepa_ac) plans actions, from the last frame of each file.
    """

    usage = "RUN START GOAL [options]"
    run: RunFolder
    """Run folder of a procedures system trained for planning, or of a world model."""
    start: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="START")]
    """Video or image of the start state."""
    goal: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GOAL")]
    """Video or image of the goal state."""
    horizon: Count | None = None
    """Number of steps, or of actions. Steps must be as many as the run was trained to plan, which is the default."""
    top_k: Count = 3
    """Number of steps to print for each position."""
    samples: Count = 1
    """Number of samples whose probabilities are averaged (steps)."""
    encoder: str | None = None
    """Encoder of the clips; by default the encoder of the run's features."""
    state: tuple[AnyNumber, ...] = ()
    """State at the start, as many numbers as the run was trained with, such as where the gripper is (actions)."""
    seed: Seed = 0
    """Seed of the search (actions)."""
    json: bool = False
    """Whether to print one JSON object instead of text."""
    out: Path | None = None
    """Figure to write: png, svg or pdf (steps)."""

    def __call__(self) -> None:
        from filmstrip.commands.work.plan import plan

        plan(self)
