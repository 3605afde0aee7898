"""``filmstrip claims``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from filmstrip.bounds import Count
from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Claims(Command):
    """Re-run what the papers found, small, and record what comes out, with its verdict.

    From a checkout of the repository. Seeds that are recorded already are not run again.
    """

    usage = "[NAME ...] [options]"
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Claims; all of them, which takes hours, if none is given."""
    seeds: Count | None = None
    """How many seeds, from 0; by default each claim's own."""
    list: bool = False
    """Only list the claims, with their verdicts and minutes."""
    again: bool = False
    """Forget what is recorded of these claims first."""

    def __call__(self) -> None:
        from filmstrip.commands.work.claims import list_claims, run_claims

        if self.list:
            list_claims()
        else:
            run_claims(self.names, self.seeds, self.again)
