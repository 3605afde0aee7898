"""Command-line arguments that are read before tyro sees them: the first one, and options that are not fields."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from filmstrip.commands.command import Command, read
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.runs.config import Run

T = TypeVar("T")

HELP = ("-h", "--help")
CONFIG_ENDING = ".json"


@dataclass(frozen=True, kw_only=True)
class PresetCommand(Command):
    """A command whose first argument is a system, and whose options are those of its preset's run."""

    run: Run

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        run, _ = run_from(cls, arguments, prog)
        return cls(run=run)


def leading(command: type[Command], arguments: Sequence[str], prog: str, expected: str) -> tuple[str, list[str]]:
    """The first argument and the remaining ones; prints the help if that is requested instead.

    Raises:
        UserError: there are no arguments; ``expected`` names the missing one.
        SystemExit: help was requested.
    """
    if arguments and arguments[0] in HELP:
        print(f"usage: {prog} {command.usage}\n\n{inspect.getdoc(command)}")
        raise SystemExit(0)
    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"{prog} needs {expected} first: {prog} {command.usage}; see `{prog} --help`")
    return arguments[0], list(arguments[1:])


def option(arguments: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of one option, and the arguments without it.

    Raises:
        UserError: the option is the last argument.
    """
    for i, word in enumerate(arguments):
        if word == flag and i + 1 < len(arguments):
            return arguments[i + 1], [*arguments[:i], *arguments[i + 2 :]]
        if word.startswith(flag + "="):
            return word.partition("=")[2], [*arguments[:i], *arguments[i + 1 :]]
        if word == flag:
            raise UserError(f"{flag} needs a value")
    return None, list(arguments)


def allowing(arguments: Sequence[str]) -> list[str]:
    """The arguments of any command without ``--allow PACKAGE``, each of which lets run folders name code of a
    package.

    Raises:
        UserError: there is no such package.
    """
    while True:
        package, arguments = option(arguments, "--allow")
        if package is None:
            return list(arguments)
        from filmstrip.runs.outside import allow

        allow(package)


def options_given(arguments: Sequence[str]) -> set[str]:
    """The names of the options among the arguments, spelled like fields."""
    return {word[2:].partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")}


def run_from(command: type[Command], arguments: Sequence[str], prog: str) -> tuple[Run, Path]:
    """The run described by the arguments after a command's name, which begin with a system, and its folder.

    Raises:
        UserError: the system or preset does not exist, or a setting is invalid.
        SystemExit: see :meth:`~filmstrip.commands.command.Command.parse`.
    """
    address, preset, arguments = _beginning(command, arguments, prog)
    from filmstrip.data import kinds
    from filmstrip.runs.config import Run

    out, arguments = option(arguments, "--out")
    given = options_given(arguments)
    preset, arguments = _with_unions(preset, arguments, given)
    if any(name == "lora" or name.startswith("lora.") for name in given):
        from filmstrip.objectives.config import LowRank

        preset = replace(preset, lora=preset.lora or LowRank())
        arguments = [word for word in arguments if word != "--lora"]
    kind, arguments = option(arguments, "--data.reads")
    if kind:
        preset = replace(preset, data=replace(preset.data, reads=kinds.named(kind)()))
    preset, arguments = _with_tokenizer(preset, arguments)
    preset, arguments = _with_language_parts(preset, arguments)
    arguments = _with_data(_with_environment(preset, arguments))
    run = read(
        Run,
        arguments,
        f"{prog} --config {address}" if address.endswith(CONFIG_ENDING) else f"{prog} {address}",
        command.usage.partition(" ")[2],
        default=preset,
        description=f"{inspect.getdoc(command)}\n\nOptions of the run, with the defaults of {address}:",
    )
    if run.init:
        from filmstrip.runs.initial_weights import with_sizes_of_init

        run = with_sizes_of_init(run, given | options_given(arguments))
    if run.objective.has_language:
        from filmstrip.runs.language import with_reading_of_parts  # other methods do without its rooms

        run = with_reading_of_parts(run, given | options_given(arguments))
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = Path(address).absolute().parent.name if address.endswith(CONFIG_ENDING) else address.replace(":", "-")
    return run, Path(out) if out else Path("runs") / f"{name}-{stamp}"


def _beginning(command: type[Command], arguments: Sequence[str], prog: str) -> tuple[str, Run, list[str]]:
    """What the arguments begin with, a system or ``--config``; the run that it stands for; and the other arguments.

    Raises:
        UserError: the system or preset does not exist, or the configuration cannot be read.
        SystemExit: help was requested.
    """
    if any(word.partition("=")[0] == "--config" for word in arguments):
        from filmstrip.runs.config import read_config

        path, arguments = option(arguments, "--config")
        place = Path(path or "").expanduser()
        place = place / "config.json" if place.is_dir() else place
        if place.suffix != CONFIG_ENDING:
            raise UserError(f"--config {path}: expected a run folder, or its config.json")
        if arguments and not arguments[0].startswith("-"):
            raise UserError(f"--config {path} stands in place of the system {arguments[0]}: give one of them")
        return str(place), read_config(place), list(arguments)
    address, arguments = leading(command, arguments, prog, "SYSTEM[:PRESET]")
    from filmstrip.systems import find

    return address, find(address), arguments


def _with_data(arguments: Sequence[str]) -> list[str]:
    """``--data`` spelled like the field that it sets: one path, or the several of a mixture."""
    arguments = [word.replace("--data=", "--data.path=", 1) for word in arguments]
    if "--data" in arguments:
        place = arguments.index("--data")
        paths = list(itertools.takewhile(lambda word: not word.startswith("--"), arguments[place + 1 :]))
        arguments[place] = "--data.mixture" if len(paths) > 1 else "--data.path"
    return arguments


def _with_environment(preset: Run, arguments: list[str]) -> list[str]:
    """``--env``, ``--reward`` and ``--experts`` spelled like the fields that they set. A person's own environment
    (``module:Class``) may be imported because it is typed.

    Raises:
        UserError: the system does not act in environments, or does not learn from films of experts.
    """
    spelled = {
        "--env": "--data.reads.env.name",
        "--reward": "--data.reads.reward-run",
        "--reward.beta": "--objective.beta" if hasattr(preset.objective, "beta") else "--objective.agent.beta",
        "--experts": "--data",
    }
    found = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if name in spelled or name.startswith("--reward."):
            if not hasattr(preset.data.reads, "env"):
                raise UserError(f"{name} is for systems that act in environments, such as control.drq")
            if name == "--experts" and not getattr(preset.data.reads, "experts", False):
                raise UserError("--experts is for systems that learn a reward from films, such as control.amp")
            name = spelled.get(name) or f"--data.reads.{name[2:]}"
        found.append(f"{name}{equals}{value}")
    typed, _ = option(found, spelled["--env"])
    if typed is not None and ":" in typed:
        from filmstrip.runs.outside import allow

        allow(typed.partition(":")[0].partition(".")[0])
    return found


def _with_unions(preset: Run, arguments: list[str], given: Collection[str]) -> tuple[Run, list[str]]:
    """The preset with the optimiser, the schedule and the unit of length that are asked for, and the other arguments.

    Raises:
        UserError: there is no such optimiser or schedule, or the length is given twice.
    """
    from filmstrip.train.lengths import Epochs, Steps
    from filmstrip.train.optim import OPTIMISERS
    from filmstrip.train.schedules import SCHEDULES

    name, arguments = option(arguments, "--optim")
    if name:
        preset = replace(preset, optim=preset.optim.changed_to(_named(name, OPTIMISERS, "--optim")))
    name, arguments = option(arguments, "--optim.schedule")
    if name:
        schedule = preset.optim.schedule.changed_to(_named(name, SCHEDULES, "--optim.schedule"))
        preset = replace(preset, optim=replace(preset.optim, schedule=schedule))
    if {"train.steps", "train.epochs"} <= set(given):
        raise UserError("--train.steps and --train.epochs both give the length of training: give one of them")
    for option_name, unit in (("train.steps", Steps), ("train.epochs", Epochs)):
        if option_name in given and not isinstance(preset.train.length, unit):
            preset = replace(preset, train=replace(preset.train, length=unit(1)))  # which the option replaces
    return preset, arguments


def _with_tokenizer(preset: Run, arguments: list[str]) -> tuple[Run, list[str]]:
    """The preset with the text tokenizer that is asked for, and the other arguments.

    Raises:
        UserError: there is no such tokenizer, or the data have no text.
    """
    name, arguments = option(arguments, "--data.reads.tokenizer")
    if name is None:
        return preset, arguments
    from filmstrip.text.tokenizers import tokenizer_named

    reads = preset.data.reads
    if not hasattr(reads, "tokenizer"):
        raise UserError(f"--data.reads.tokenizer is for data with text, and {type(reads).__name__} have none")
    reads = replace(reads, **{"tokenizer": tokenizer_named(name)})
    return replace(preset, data=replace(preset.data, reads=reads)), arguments


def _with_language_parts(preset: Run, arguments: list[str]) -> tuple[Run, list[str]]:
    """The preset with the adaptation of the language model and the connector that are asked for, and the other
    arguments.

    Raises:
        UserError: there is no such adaptation or connector, or the preset has no language model that sees.
    """
    flags = ("--objective.adaptation", "--objective.connector")
    refined = any(word.startswith(f"{flags[0]}.") for word in arguments)
    if not refined and not any(word.partition("=")[0] in flags for word in arguments):
        return preset, arguments
    from filmstrip.objectives.language import ADAPTATIONS, CONNECTORS, VideoLanguageConfig

    objective = preset.objective
    if not isinstance(objective, VideoLanguageConfig):
        raise UserError(f"{flags[0]} and {flags[1]} are for language models that see (language.*)")
    name, arguments = option(arguments, flags[0])
    if name or (refined and objective.adaptation is None):
        objective = objective.adapted(_named(name or "lora", ADAPTATIONS, flags[0]))
    name, arguments = option(arguments, flags[1])
    if name:
        objective = objective.with_connector(_named(name, CONNECTORS, flags[1])())
    return replace(preset, objective=objective), arguments


def _named(name: str, known: Mapping[str, T], flag: str) -> T:
    """What a name stands for.

    Raises:
        UserError: nothing; says what there is.
    """
    if name not in known:
        raise UserError(f"{flag} {name}: expected one of {', '.join(known)}")
    return known[name]
