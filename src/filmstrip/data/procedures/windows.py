"""Windows of procedures: the clips that are observed, and the steps to predict.

All windows of a task have the same number of positions, so that they can be stacked. If there are fewer clips,
padding comes first, and the targets are always at the same positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.data.kinds.procedures import Procedures


class Part(NamedTuple):
    """A part of a video whose features are observed."""

    start: float
    end: float
    step: int
    """Index of the step in the part."""
    part: int
    """Number of the part, unique within its video."""
    step_seconds: float = math.inf
    """Duration of the whole step that the part belongs to, in seconds."""


class Position(NamedTuple):
    """One position of a window; by default padding."""

    step: int = -1
    given: Part | None = None
    target: bool = False


@dataclass(frozen=True)
class Window:
    """One sample: its positions in temporal order."""

    procedure: Procedure
    places: tuple[Position, ...]

    @property
    def span(self) -> tuple[float, float]:
        """Start of the first observed clip and end of the last one, in seconds."""
        given = [place.given for place in self.places if place.given is not None]
        return given[0].start, given[-1].end


def window_size(config: Procedures) -> int:
    """Number of positions of every window, S."""
    match config.task:
        case "planning":
            return config.horizon + 2
        case "task_classification":
            return config.observed + 1
        case "step_classification":
            return 1
    return config.observed + config.horizon


def check(config: Procedures) -> None:
    """Check that there is something to observe and something to predict.

    Raises:
        UserError: a setting is out of range.
    """
    if min(config.horizon, config.observed, config.width, config.tokens) < 1:
        raise UserError("procedures: horizon, observed, width and tokens are one or more")
    if config.noise < 0 or config.rate <= 0 or config.state_seconds <= 0:
        raise UserError("procedures: noise is zero or more; rate and state_seconds are more than zero")


def windows(procedure: Procedure, config: Procedures) -> Iterator[Window]:
    """Every window of one procedure in temporal order; none if it is too short."""
    match config.task:
        case "forecast":
            cut = _next_steps(procedure, config, least=1)
        case "anticipation":
            cut = _next_steps(procedure, config, least=config.observed)
        case "planning":
            cut = _plans(procedure, config)
        case "task_classification":
            cut = _tasks(procedure, config)
        case _:
            cut = ((Position(step.step, _clip(step, i), True),) for i, step in enumerate(procedure.steps))
    return (Window(procedure, places) for places in cut)


def names(annotations: Annotations, config: Procedures) -> tuple[str, ...]:
    """Names of the predicted classes: the steps, or the tasks in their place."""
    return annotations.tasks if config.task == "task_classification" else annotations.steps


def _clip(step: Step, i: int) -> Part:
    return Part(step.start, step.end, step.step, i, step.end - step.start)


def _next_steps(procedure: Procedure, config: Procedures, least: int) -> Iterator[tuple[Position, ...]]:
    """At least so many clips, then ``horizon`` steps."""
    steps = procedure.steps
    for now in range(least, len(steps) - config.horizon + 1):
        first = max(0, now - config.observed)
        seen = tuple(Position(steps[i].step, _clip(steps[i], i)) for i in range(first, now))
        coming = tuple(Position(step.step, target=True) for step in steps[now : now + config.horizon])
        yield (Position(),) * (config.observed - len(seen)) + seen + coming


def _plans(procedure: Procedure, config: Procedures) -> Iterator[tuple[Position, ...]]:
    """Sliding windows of ``horizon`` steps between a start and a goal (Chang et al. 2020, Wang et al. 2023).

    Start and goal are states, not steps: they are observed where the first step begins and where the last one ends,
    and all ``horizon`` steps are to be predicted.
    """
    steps, long = procedure.steps, config.state_seconds
    for first in range(len(steps) - config.horizon + 1):
        last = first + config.horizon - 1
        start, goal = steps[first], steps[last]
        begins = _clip(start, 2 * first)._replace(end=min(start.start + long, start.end))
        ends = _clip(goal, 2 * last + 1)._replace(start=max(goal.end - long, goal.start))
        between = tuple(Position(step.step, target=True) for step in steps[first : last + 1])
        yield Position(given=begins), *between, Position(given=ends)


def _tasks(procedure: Procedure, config: Procedures) -> Iterator[tuple[Position, ...]]:
    """Up to ``observed`` clips, evenly chosen, and a last place whose step is the task."""
    count = min(config.observed, len(procedure.steps))
    if count and procedure.task >= 0:
        chosen = [(2 * k + 1) * len(procedure.steps) // (2 * count) for k in range(count)]
        seen = tuple(Position(procedure.steps[i].step, _clip(procedure.steps[i], i)) for i in chosen)
        # Steps are numbered otherwise than tasks: here only the task has a number.
        seen = tuple(place._replace(step=-1) for place in seen)
        yield (Position(),) * (config.observed - count) + seen + (Position(procedure.task, target=True),)
