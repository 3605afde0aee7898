"""``filmstrip claims``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from filmstrip.bounds import Count
from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Claims(Command):
    """Re-run the papers' findings at small scale, and record the results with a verdict for each.

    Needs a checkout of the repository. Seeds whose results are recorded already are not run again.
    """

    usage = "[NAME ...] [options]"
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Names of the claims to run; by default all of them, which takes hours."""
    seeds: Count | None = None
    """Number of seeds, starting at 0; by default each claim's own."""
    list: bool = False
    """Only list the claims, with their verdicts and their duration in minutes."""
    again: bool = False
    """Discard the recorded results of these claims first."""
    confirm: bool = False
    """Measure the first recorded seed of these claims anew, and keep their results if it gives the same figures: for
    claims whose code was rewritten without changing what it measures."""

    def __call__(self) -> None:
        from filmstrip.commands.work.claims import list_claims, run_claims

        if self.list:
            list_claims()
        else:
            run_claims(self.names, self.seeds, again=self.again, confirm=self.confirm)
