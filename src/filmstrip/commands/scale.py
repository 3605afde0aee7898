"""``filmstrip scale``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import tyro

from filmstrip.bounds import Count, Rate, check_numbers, check_options
from filmstrip.commands.arguments import HELP, leading, run_from
from filmstrip.commands.command import Command, read
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.runs.config import Run

FIRST = "a1"
"""Preset that a ladder begins with where a system has it and no preset is named."""
LEAST = 3
"""Minimum number of sizes."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Sizes, budget and learning rates of a scaling law."""

    ladder: Count = 6
    """Number of sizes: width, depth, heads and inner width of the preset, times 1, 2, 3, ..."""
    tokens: Rate = 2e6
    """Number of tokens that every size is trained on; a later call with more extends the runs."""
    checkpoints: Count = 4
    """Number of times that the loss on held-out clips is measured during the training of each size."""
    sweep: Literal["width", "ladder", "both", "none"] = "width"
    """Networks for which learning rates are tried: every width at the depth of the smallest size (``width``), every
    size as it is (``ladder``), both, or none: the preset's rate is used."""
    sweep_widths: Count | None = None
    """Number of sizes that are swept, smallest first; the others use the rate of the largest of these. By default
    all."""
    sweep_tokens: Rate | None = None
    """Number of tokens for each learning rate; by default a quarter of ``tokens``, or what was tried before."""
    rates: tuple[Rate, ...] = ()
    """Learning rates that are tried; by default a quarter, half, once, twice and four times the preset's."""
    held_out: Count = 256
    """Maximum number of held-out clips, the first of the evaluated split."""
    passes: Rate = 4.0
    """Maximum number of passes over the training clips; data that are seen more often would bend the law."""
    resamples: Count = 1000
    """Number of bootstrap samples for the interval of the exponent."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Scale(Command):
    """Fit a scaling law: train a ladder of sizes, and relate the held-out loss to the compute that was spent.

    First learning rates are tried for each width, then every size is trained with the best. The lower envelope of all
    measurements is fitted in log-log, with a bootstrap interval. The same command resumes what was interrupted.
    """

    usage = "SYSTEM[:PRESET] [--ladder N] [--tokens N] [--data PATH] [--out FOLDER] [options of the run]"
    run: Run
    out: Path
    ladder: Ladder

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        address, rest = leading(cls, arguments, prog, "SYSTEM[:PRESET]")
        if any(word in HELP for word in rest):
            try:
                read(Ladder, ["--help"], f"{prog} {address}", cls.usage.partition(" ")[2])
            except SystemExit:
                print()
        else:
            ladder, rest = tyro.cli(Ladder, prog=prog, args=rest, return_unknown_args=True)
            check_options(ladder)
            if ladder.ladder < LEAST:
                raise UserError(
                    f"--ladder is {ladder.ladder}: a power law needs at least {LEAST} sizes; 6 or more are advised"
                )
        from filmstrip import systems

        if ":" not in address and FIRST in systems.presets(address):
            address = f"{address}:{FIRST}"
        run, out = run_from(cls, [address, *rest], prog)
        return cls(run=run, out=out, ladder=ladder)

    def __call__(self) -> int:
        from filmstrip.commands.work.scale import scale

        return scale(self.run, self.out, self.ladder)
