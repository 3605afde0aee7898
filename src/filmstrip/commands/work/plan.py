"""A plan: the steps that lead from a start to a goal, each shown by a video."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text
from torch import Tensor

from filmstrip.commands.plan import Plan as Wanted
from filmstrip.commands.work.forecast import Ranked, bars, ranked, save, show_frame, show_steps
from filmstrip.commands.work.planner import Planner, load_planner
from filmstrip.errors import UserError


@dataclass(frozen=True)
class Plan:
    """The most probable steps of each place between a start and a goal."""

    start: str
    goal: str
    steps: tuple[Ranked, ...]


def plan(wanted: Wanted) -> None:
    """Print the plan that a run makes from one video to another; with ``out`` also draw it.

    Raises:
        UserError: the run plans nothing, or not so many steps, or a video cannot be read.
    """
    folder, horizon, out = wanted.run, wanted.horizon, wanted.out
    planner = load_planner(folder, ("planning",), wanted.encoder)
    if horizon is not None and horizon != planner.config.horizon:
        raise UserError(
            f"{folder} was trained to plan {planner.config.horizon} steps, not {horizon}: train one with "
            f"--data.reads.horizon {horizon}"
        )
    found, pictures = plan_between(planner, wanted.start, wanted.goal, top_k=wanted.top_k, samples=wanted.samples)
    if wanted.json:
        json.dump({"run": str(folder), **asdict(found)}, sys.stdout, indent=2)
        print()
    else:
        Console().print(render(found))
    if out is not None:
        draw(found, pictures, out)


def plan_between(
    planner: Planner, start: Path, goal: Path, *, top_k: int = 3, samples: int = 1
) -> tuple[Plan, tuple[Tensor, Tensor]]:
    """The plan from one video to another, and a frame of each (``C H W`` uint8).

    Raises:
        UserError: a video cannot be read.
    """
    (first, given), (last, wanted) = planner.read(start), planner.read(goal)
    horizon = planner.config.horizon
    window = [given, *[None] * horizon, wanted]
    probabilities = planner.probabilities([window], range(1, horizon + 1), samples=samples)[0]
    steps = tuple(ranked(place, planner.info.steps, top_k) for place in probabilities)
    return Plan(str(start), str(goal), steps), (first.video[0, 0], last.video[0, -1])


def render(found: Plan) -> RenderableType:
    """A plan as text."""
    title = Text.assemble(("from ", "dim"), (found.start, "bold"), (" to ", "dim"), (found.goal, "bold"))
    return Group(title, bars(found.steps), Text())


def draw(found: Plan, pictures: tuple[Tensor, Tensor], out: Path) -> None:
    """Draw the start, the steps and the goal in a row.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    columns = len(found.steps) + 2
    figure = Figure(figsize=(2.2 * columns, 2.2), layout="constrained")
    axes = figure.subplots(1, columns)
    show_frame(axes[0], pictures[0], "start")
    for number, place in enumerate(found.steps, 1):
        show_steps(axes[number], place, f"step {number}")
    show_frame(axes[-1], pictures[1], "goal")
    save(figure, out)
