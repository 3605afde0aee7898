"""What a command is: a small dataclass that is read off the command line and then called."""

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
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Files = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of ``filmstrip``: its fields are its options, its docstring is its help.

    A run and the files that are looked at are positional, everything else is an option, and data are ``--data``.
    Commands whose options depend on their first word (a system, a run) define :meth:`parse`.
    """

    usage: ClassVar[str]
    """What follows the command's name, as its help shows it."""

    @classmethod
    def parse(cls, words: Sequence[str], prog: str) -> Self:
        """The command that the words after its name describe.

        Args:
            words: What was typed after ``prog``.
            prog: ``filmstrip`` and the command's name.

        Raises:
            UserError: a number is outside its bounds.
            SystemExit: help was asked for (0), or an option is unknown, missing or cannot be read (2).
        """
        command = read(cls, words, prog, cls.usage)
        check_options(command)
        return command

    def __call__(self) -> int | None:
        """Do it; returns the exit code where it may be another one than 0."""
        raise TypeError(f"{type(self).__name__} does not define __call__()")


def read(
    kind: type[T],
    words: Sequence[str],
    prog: str,
    usage: str,
    *,
    default: T | None = None,
    description: str | None = None,
) -> T:
    """A dataclass read off the command line; its help begins with ``prog`` and ``usage``.

    Raises:
        SystemExit: as :meth:`Command.parse`.
    """
    given: dict[str, Any] = {} if default is None else {"default": default, "config": (tyro.conf.AvoidSubcommands,)}
    said = io.TextIOWrapper(io.BytesIO(), encoding=sys.stdout.encoding)
    try:
        with contextlib.redirect_stdout(said):
            return tyro.cli(kind, args=words, prog=prog, description=description or inspect.getdoc(kind), **given)
    finally:
        said.seek(0)
        text = said.read()
        if text.startswith("usage:"):  # its first paragraph, which lists every option a first time
            _, _, explained = text.partition("\n\n")
            text = f"usage: {prog} {usage}".rstrip() + f"\n\n{explained}"
        print(text, end="")
