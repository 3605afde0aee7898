"""``filmstrip train``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filmstrip.commands.arguments import options_given, run_from
from filmstrip.commands.command import Command
from filmstrip.commands.stopping import keeping

if TYPE_CHECKING:
    from filmstrip.runs.config import Run


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a preset, on its own data or on yours.

    --lora adapts the encoder of a recogniser or a detector by products of low rank, in place of training its weights;
    so does one of its settings: --lora.rank 8, --lora.alpha 16, --lora.dropout 0, --lora.layers NAME... (all).
    --config RUN/config.json in place of the system begins a new run with the configuration of another one, which the
    options change. A system may also be one of a package of yours, installed or in the current folder:
    my_package.my_system:preset.
    """

    usage = "SYSTEM[:PRESET] [--data PATH] [--out FOLDER] [options of the run]"
    run: Run
    out: Path
    given: tuple[str, ...] = ()
    """Settings of the objective given on the command line: the data must not contradict them."""
    command: str | None = None
    """The whole command, which the run folder keeps."""

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        run, out = run_from(cls, arguments, prog)
        given = (name for name in options_given(arguments) if name.startswith("objective."))
        return cls(run=run, out=out, given=tuple(given), command=shlex.join([*prog.split(), *arguments]))

    def __call__(self) -> None:
        from filmstrip.distributed import process
        from filmstrip.report.run import run_report
        from filmstrip.runs import experiment
        from filmstrip.runs.run_folder import what_is_saved

        with keeping(lambda: what_is_saved(self.out)):
            result = experiment.train(self.run, self.out, given=list(self.given), command=self.command)
        if process.rank() > 0:
            return
        for name, value in result.metrics.items():
            print(f"{name:<24} {value:.4f}")
        print(run_report(self.out))
