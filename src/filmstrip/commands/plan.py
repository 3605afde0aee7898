"""``filmstrip plan``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count
from filmstrip.commands.command import Command, RunFolder


@dataclass(frozen=True, kw_only=True)
class Plan(Command):
    """Plan the steps that lead from a start to a goal, each shown in a video."""

    usage = "RUN START GOAL [options]"
    run: RunFolder
    """Run folder of a procedures system trained for planning."""
    start: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="START")]
    """Video of the start state."""
    goal: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GOAL")]
    """Video of the goal state."""
    horizon: Count | None = None
    """Number of steps; must equal the number that the run was trained to plan, which is the default."""
    top_k: Count = 3
    """Number of steps to print for each position."""
    samples: Count = 1
    """Number of samples whose probabilities are averaged."""
    encoder: str | None = None
    """Encoder of the clips; by default the encoder of the run's features."""
    json: bool = False
    """Whether to print one JSON object instead of text."""
    out: Path | None = None
    """Figure to write: png, svg or pdf."""

    def __call__(self) -> None:
        from filmstrip.commands.work.plan import plan

        plan(self)
