"""What a run can be asked about a film, and what a person may choose with it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from filmstrip.data.kinds.procedures import Procedures
from filmstrip.errors import UserError
from filmstrip.protocols import (
    Answers,
    Classifier,
    ContactForecaster,
    Detector,
    Forecaster,
    Generator,
    GoalPlanner,
    Grounder,
    Objective,
    Tokenizer,
)
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG
from filmstrip.runs.loading import load_classes
from filmstrip.studio import works
from filmstrip.studio.films import Film
from filmstrip.studio.jobs import Job
from filmstrip.studio.works import Answer


@dataclass(frozen=True)
class Option:
    """Something that a person may choose with a request."""

    name: str
    label: str
    kind: type
    default: Any = None
    """Value if nothing is given; None where it may stay open, ``...`` where it must be given."""
    lowest: float = 1
    highest: float = 64
    """Bounds of a number."""
    longest: int = 1000
    """Maximum length of a text."""
    choices: Callable[[Path], tuple[str, ...]] | None = None
    """Choices of a text, of a run's folder; one of them must be taken."""


@dataclass(frozen=True)
class Ask:
    """One kind of request."""

    label: str
    button: str
    answers: Callable[[Objective, Run], bool]
    """Whether a run's objective can answer."""
    work: Callable[[Job, Path, Film, Mapping[str, Any]], Answer]
    """Function that answers: of a job, a run's folder, a film, and the options."""
    options: tuple[Option, ...] = ()


def abilities(folder: Path) -> tuple[str, ...]:
    """What a run can be asked: keys of :data:`ASKS`."""
    try:
        return _abilities(folder, os.stat(folder / CONFIG).st_mtime_ns)
    except OSError:
        return ()


@functools.lru_cache(maxsize=256)
def _abilities(folder: Path, version: int) -> tuple[str, ...]:
    try:
        run = read_config(folder / CONFIG)
        with torch.device("meta"):
            objective = run.objective.build()
        return tuple(name for name, ask in ASKS.items() if ask.answers(objective, run))
    except Exception:  # whatever a configuration of another version leads to: the run cannot be asked
        return ()


def options_from(ask: Ask, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a request, checked.

    Raises:
        UserError: one is missing, unknown or out of bounds.
    """
    return {option.name: _checked(option, folder, given.get(option.name)) for option in ask.options}


def _checked(option: Option, folder: Path, value: Any) -> Any:
    if value in (None, ""):
        if option.default is ...:
            raise UserError(f"{option.label} is missing: fill it in")
        return option.default
    if option.kind in (int, float):
        try:
            number = option.kind(value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{option.label} is {value!r}: expected a number") from None
        if not option.lowest <= number <= option.highest:
            raise UserError(f"{option.label} is {number}: expected {option.lowest:g} to {option.highest:g}")
        return number
    text = str(value).strip()
    if option.choices is not None and text not in option.choices(folder):
        raise UserError(f"{option.label} is {text!r}: expected one of the list")
    # What begins with a hyphen would be an option of the command.
    if option.choices is None and (text.startswith("-") or len(text) > option.longest or "\0" in text):
        raise UserError(f"{option.label} may not begin with a hyphen, and has at most {option.longest:,} characters")
    return text


def _steps(*tasks: str) -> Callable[[Objective, Run], bool]:
    def answers(objective: Objective, run: Run) -> bool:
        return (
            isinstance(objective, Forecaster)
            and isinstance(run.data.reads, Procedures)
            and run.data.reads.task in tasks
        )

    return answers


def _is(*protocols: type) -> Callable[[Objective, Run], bool]:
    return lambda objective, run: isinstance(objective, protocols)


CLIPS = Option("clips", "Number of clips", int, 8)
CLASS = Option("class", "Class", str, choices=load_classes)

ASKS = {
    "classify": Ask("Classes along the film", "Classify", _is(Classifier), works.classify, (CLIPS,)),
    "explain": Ask("Where the run looks", "Explain", _is(Classifier), works.explain, (CLASS,)),
    "detect": Ask(
        "Actions of actors, in boxes",
        "Detect",
        _is(Detector),
        works.detect,
        (Option("boxes", "Table of boxes (AVA's format; empty: the run's own)", str, longest=10**7),),
    ),
    "anticipate": Ask(
        "What will be touched next",
        "Anticipate",
        _is(ContactForecaster),
        works.anticipate,
        (Option("every", "Seconds between moments", float, 0.5, 0.05, 60),),
    ),
    "forecast": Ask("Next steps", "Forecast", _steps("forecast", "anticipation"), works.forecast),
    "plan": Ask(
        "Plan between two moments",
        "Plan",
        lambda objective, run: isinstance(objective, GoalPlanner) or _steps("planning")(objective, run),
        works.plan,
        (Option("start", "Start (s)", float, 0.0, 0, 1e6), Option("goal", "Goal (s)", float, ..., 0, 1e6)),
    ),
    "reconstruct": Ask(
        "Reconstruction from tokens",
        "Reconstruct",
        _is(Tokenizer),
        works.reconstruct,
        (Option("clips", "Number of clips", int, 2, 1, 8),),
    ),
    "generate": Ask(
        "Samples",
        "Generate",
        _is(Generator),
        works.generate,
        (
            Option("samples", "Number of samples", int, 4, 1, 16),
            Option("context", "Frames of the film to continue (0: none)", int, 0, 0, 64),
            CLASS,
            Option("seed", "Seed", int, 0, 0, 2**31),
        ),
    ),
    "answer": Ask(
        "A question in words", "Ask", _is(Answers), works.answer, (Option("question", "Question", str, ...),)
    ),
    "find": Ask("A moment in words", "Find", _is(Grounder), works.find, (Option("query", "Sentence", str, ...),)),
}
"""All kinds of requests, by name."""
