"""Plans: the steps that lead from a start to a goal, each shown in a video."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text
from torch import Tensor

from filmstrip.commands.plan import Plan
from filmstrip.commands.work.forecast import Ranked, bars, ranked, save, show_frame, show_steps
from filmstrip.commands.work.step_predictor import StepPredictor, load_step_predictor
from filmstrip.errors import UserError


@dataclass(frozen=True)
class PlannedSteps:
    """The most probable steps at each position between a start and a goal."""

    start: str
    goal: str
    steps: tuple[Ranked, ...]


def plan(command: Plan) -> None:
    """Print the plan from one video to another; with ``out``, also draw it.

    Raises:
        UserError: the run is not trained for planning, or for another number of steps, or a video cannot be read.
    """
    folder, horizon, out = command.run, command.horizon, command.out
    predictor = load_step_predictor(folder, ("planning",), command.encoder)
    if horizon is not None and horizon != predictor.config.horizon:
        raise UserError(
            f"{folder} was trained to plan {predictor.config.horizon} steps, not {horizon}: train one with "
            f"--data.reads.horizon {horizon}"
        )
    found, pictures = plan_between(
        predictor, command.start, command.goal, top_k=command.top_k, samples=command.samples
    )
    if command.json:
        json.dump({"run": str(folder), **asdict(found)}, sys.stdout, indent=2)
        print()
    else:
        Console().print(render(found))
    if out is not None:
        draw(found, pictures, out)


def plan_between(
    predictor: StepPredictor, start: Path, goal: Path, *, top_k: int = 3, samples: int = 1
) -> tuple[PlannedSteps, tuple[Tensor, Tensor]]:
    """The plan from one video to another, and a frame of each (``C H W`` uint8).

    Raises:
        UserError: a video cannot be read.
    """
    (first, start_features), (last, goal_features) = predictor.read(start), predictor.read(goal)
    horizon = predictor.config.horizon
    window = [start_features, *[None] * horizon, goal_features]
    probabilities = predictor.probabilities([window], range(1, horizon + 1), samples=samples)[0]
    steps = tuple(ranked(position, predictor.info.steps, top_k) for position in probabilities)
    return PlannedSteps(str(start), str(goal), steps), (first.video[0, 0], last.video[0, -1])


def render(found: PlannedSteps) -> RenderableType:
    """A plan as text."""
    title = Text.assemble(("from ", "dim"), (found.start, "bold"), (" to ", "dim"), (found.goal, "bold"))
    return Group(title, bars(found.steps), Text())


def draw(found: PlannedSteps, pictures: tuple[Tensor, Tensor], out: Path) -> None:
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
