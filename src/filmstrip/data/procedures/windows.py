"""The windows that are cut from procedures: which clips are given, and which steps are to be predicted.

All windows of a task have as many places, so that they stack. Where there are fewer clips than that, padding comes
first, and what is to be predicted is always at the same places.
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
    """A part of a video whose features are given."""

    start: float
    end: float
    step: int
    """What is done there."""
    part: int
    """Tells the parts of one video apart."""
    step_seconds: float = math.inf
    """How long the step lasts that this is a part of."""


class Position(NamedTuple):
    """One place of a window; by default padding."""

    step: int = -1
    given: Part | None = None
    target: bool = False


@dataclass(frozen=True)
class Window:
    """One sample: its places in order of time."""

    procedure: Procedure
    places: tuple[Position, ...]

    @property
    def span(self) -> tuple[float, float]:
        """From the first clip that is given to the end of the last, seconds."""
        given = [place.given for place in self.places if place.given is not None]
        return given[0].start, given[-1].end


def window_size(config: Procedures) -> int:
    """S, the places of every window."""
    match config.task:
        case "planning":
            return config.horizon + 2
        case "task_classification":
            return config.observed + 1
        case "step_classification":
            return 1
    return config.observed + config.horizon


def check(config: Procedures) -> None:
    """See that there is something to observe and something to predict.

    Raises:
        UserError: a number that cannot be.
    """
    if min(config.horizon, config.observed, config.width, config.tokens) < 1:
        raise UserError("procedures: horizon, observed, width and tokens are one or more")
    if config.noise < 0 or config.rate <= 0 or config.state_seconds <= 0:
        raise UserError("procedures: noise is zero or more; rate and state_seconds are more than zero")


def windows(procedure: Procedure, config: Procedures) -> Iterator[Window]:
    """Every window of one procedure, in order of time; none where it is too short."""
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
    """What is predicted: the steps, or the tasks, which then take the steps' place."""
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

    Start and goal are states, not steps: they are seen where the first step begins and where the last one ends, and
    all ``horizon`` steps are to be predicted.
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
