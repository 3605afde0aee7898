"""What is read off a command's words before tyro sees them: the first word, and options that are no fields."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filmstrip.commands.command import Command, read
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.runs.config import Run

T = TypeVar("T")

HELP = ("-h", "--help")


def leading(command: type[Command], words: Sequence[str], prog: str, wanted: str) -> tuple[str, list[str]]:
    """The first word, and the rest; help in its place is printed.

    Raises:
        UserError: there is none; ``wanted`` says what it would be.
        SystemExit: help was asked for.
    """
    if words and words[0] in HELP:
        print(f"usage: {prog} {command.usage}\n\n{inspect.getdoc(command)}")
        raise SystemExit(0)
    if not words or words[0].startswith("-"):
        raise UserError(f"{prog} needs {wanted} first: {prog} {command.usage}; see `{prog} --help`")
    return words[0], list(words[1:])


def option(words: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of one option, and the words without it.

    Raises:
        UserError: the option is the last word.
    """
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1], [*words[:i], *words[i + 2 :]]
        if word.startswith(flag + "="):
            return word.partition("=")[2], [*words[:i], *words[i + 1 :]]
        if word == flag:
            raise UserError(f"{flag} needs a value")
    return None, list(words)


def options_given(words: Sequence[str]) -> set[str]:
    """The names of the options among words, as fields are called."""
    return {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def run_from(command: type[Command], words: Sequence[str], prog: str) -> tuple[Run, Path]:
    """The run that the words after a command's name describe, beginning with a system, and where it goes.

    Raises:
        UserError: there is no such system or preset, or a setting cannot be.
        SystemExit: as :meth:`~filmstrip.commands.command.Command.parse`.
    """
    address, words = leading(command, words, prog, "SYSTEM[:PRESET]")
    from filmstrip import systems
    from filmstrip.data import kinds
    from filmstrip.runs.config import Run

    preset = systems.find(address)
    out, words = option(words, "--out")
    given = options_given(words)
    preset, words = _with_unions(preset, words, given)
    kind, words = option(words, "--data.reads")
    if kind:
        preset = replace(preset, data=replace(preset.data, reads=kinds.named(kind)()))
    words = ["--data.path" if w == "--data" else w.replace("--data=", "--data.path=", 1) for w in words]
    run = read(
        Run,
        words,
        f"{prog} {address}",
        command.usage.partition(" ")[2],
        default=preset,
        description=f"{inspect.getdoc(command)}\n\nThe options of the run, as {address} sets them:",
    )
    if run.init:
        from filmstrip.runs.initial_weights import with_sizes_of_init

        run = with_sizes_of_init(run, given | options_given(words))
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return run, Path(out) if out else Path("runs") / f"{address.replace(':', '-')}-{stamp}"


def _with_unions(preset: Run, words: list[str], given: Collection[str]) -> tuple[Run, list[str]]:
    """The preset with the optimiser, the schedule and the unit of length that are asked for, and the other words.

    Raises:
        UserError: there is no such optimiser or schedule, or the length is given twice.
    """
    from filmstrip.train.lengths import Epochs, Steps
    from filmstrip.train.optim import OPTIMISERS
    from filmstrip.train.schedules import SCHEDULES

    name, words = option(words, "--optim")
    if name:
        preset = replace(preset, optim=preset.optim.changed_to(_named(name, OPTIMISERS, "--optim")))
    name, words = option(words, "--optim.schedule")
    if name:
        schedule = preset.optim.schedule.changed_to(_named(name, SCHEDULES, "--optim.schedule"))
        preset = replace(preset, optim=replace(preset.optim, schedule=schedule))
    if {"train.steps", "train.epochs"} <= set(given):
        raise UserError("--train.steps and --train.epochs both give the length of training: give one of them")
    for option_name, unit in (("train.steps", Steps), ("train.epochs", Epochs)):
        if option_name in given and not isinstance(preset.train.length, unit):
            preset = replace(preset, train=replace(preset.train, length=unit(1)))  # which the option replaces
    return preset, words


def _named(name: str, known: Mapping[str, T], flag: str) -> T:
    """What a name stands for.

    Raises:
        UserError: nothing; says what there is.
    """
    if name not in known:
        raise UserError(f"{flag} {name}: expected one of {', '.join(known)}")
    return known[name]
