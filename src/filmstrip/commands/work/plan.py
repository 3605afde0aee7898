"""Plans: the steps, or the actions, that lead from a start to a goal, each shown in a video or an image."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console, Group, RenderableType
from rich.text import Text
from torch import Tensor

from filmstrip.commands.plan import Plan
from filmstrip.commands.work.forecast import Ranked, bars, ranked, save, show_frame, show_steps
from filmstrip.commands.work.step_predictor import StepPredictor, load_step_predictor
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.reading.views import frames_in, opened, views_of_parts
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import GoalPlanner, Objective
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.loading import load_objective


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
    if is_run(folder) and not isinstance(read_config(folder / CONFIG).data.reads, Procedures):
        objective, run = load_objective(folder)
        if isinstance(objective, GoalPlanner):
            _print_actions(command, plan_actions(command, objective, run))
            return
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


def plan_actions(command: Plan, objective: Objective, run: Run) -> Tensor:
    """The actions ``H A`` from the last frame of one file to the last frame of another.

    Raises:
        UserError: a file cannot be read, the state does not fit, or a figure was asked for.
    """
    assert isinstance(objective, GoalPlanner), "the run plans actions"
    if command.out is not None:
        raise UserError("a plan of actions has no figure: leave out --out")
    device = device_of(objective)
    frame, goal = (last_frame(path, run.data)[None].to(device) for path in (command.start, command.goal))
    state = torch.tensor([command.state], device=device) if command.state else None
    with inference(objective):
        return objective.plan_actions(frame, goal, state, seed=command.seed, horizon=command.horizon)[0].cpu()


def last_frame(path: Path, data: Data) -> Tensor:
    """The last frame of a video, or an image, as a run's clips show it: ``C H W`` uint8.

    Raises:
        UserError: the file cannot be read.
    """
    clip = replace(data.clip, num_frames=1, stride=1, sampling="dense")
    with opened(path, data.backend) as decoder:
        clips = min(2, frames_in(decoder.info))  # the last one is at the end
        return next(views_of_parts(decoder, clip, [(None, None)], num_clips=clips)).video[-1, 0]


def _print_actions(command: Plan, actions: Tensor) -> None:
    if command.json:
        paths = {"run": str(command.run), "start": str(command.start), "goal": str(command.goal)}
        json.dump({**paths, "actions": actions.tolist()}, sys.stdout, indent=2)
        print()
        return
    for number, action in enumerate(actions.tolist(), 1):
        print(f"action {number}: {' '.join(f'{value:.4f}' for value in action)}")


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
