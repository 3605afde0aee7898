"""The base class of commands: a small dataclass that is parsed from the command line and then called."""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import tyro

from filmstrip.bounds import check_options

T = TypeVar("T")

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Files = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of ``filmstrip``: its fields are its options, its docstring is its help.

    A run and input files are positional, everything else is an option, and data are given with ``--data``.
    Commands whose options depend on their first argument (a system, a run) define :meth:`parse`.
    """

    usage: ClassVar[str]
    """Arguments after the command's name, as the first line of its help shows them."""

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        """The command described by the arguments after its name.

        Args:
            arguments: The arguments after ``prog``.
            prog: ``filmstrip`` followed by the command's name.

        Raises:
            UserError: a number is outside its bounds.
            SystemExit: help was requested (0), or an option is unknown, missing or invalid (2).
        """
        command = read(cls, arguments, prog, cls.usage)
        check_options(command)
        return command

    def __call__(self) -> int | None:
        """Run the command; returns its exit code, None meaning 0."""
        raise TypeError(f"{type(self).__name__} does not define __call__()")


def read(
    kind: type[T],
    arguments: Sequence[str],
    prog: str,
    usage: str,
    *,
    default: T | None = None,
    description: str | None = None,
) -> T:
    """A dataclass parsed from command-line arguments; its help begins with ``prog`` and ``usage``.

    Raises:
        SystemExit: see :meth:`Command.parse`.
    """
    given: dict[str, Any] = {} if default is None else {"default": default, "config": (tyro.conf.AvoidSubcommands,)}
    output = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding)
    try:
        with contextlib.redirect_stdout(output):
            return tyro.cli(kind, args=arguments, prog=prog, description=description or inspect.getdoc(kind), **given)
    finally:
        output.seek(0)
        text = output.read()
        if text.startswith("usage:"):  # tyro's first paragraph repeats every option that is listed below it
            _, _, details = text.partition("\n\n")
            text = f"usage: {prog} {usage}".rstrip() + f"\n\n{details}"
        print(text, end="")
