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
    """Plan the steps that lead from a start to a goal, each shown by a video."""

    usage = "RUN START GOAL [options]"
    run: RunFolder
    """A run folder of procedures, trained for planning."""
    start: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="START")]
    """A video of how things are."""
    goal: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GOAL")]
    """A video of how they should be."""
    horizon: Count | None = None
    """How many steps; as many as the run was trained to plan."""
    top_k: Count = 3
    """How many steps to name for each place."""
    samples: Count = 1
    """Draws whose probabilities are averaged."""
    encoder: str | None = None
    """What encodes clips; by default what encoded the run's features."""
    json: bool = False
    """Print one JSON object instead of text."""
    out: Path | None = None
    """Also draw it: a png, svg or pdf."""

    def __call__(self) -> None:
        from filmstrip.commands.work.plan import plan

        plan(self)
