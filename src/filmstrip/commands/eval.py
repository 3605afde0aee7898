"""``filmstrip eval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filmstrip.commands.arguments import HELP, leading, option
from filmstrip.commands.command import Command, read
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.runs.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class Eval(Command):
    """Evaluate a run, or an encoder of the Hub, by one protocol, or a run by all that it is configured with.

    Results on the run's own data are added to its report, including curves over frames.
    """

    usage = "RUN [--protocol NAME [options of the protocol]] [--data PATH]"
    run: str
    """Run folder, hf:OWNER/NAME, a short name such as dinov2, or a local folder in the Hub's layout."""
    protocols: tuple[Evaluation, ...] = ()
    """Protocols to evaluate by; if empty, those of the run."""
    data: Path | None = None

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        folder, arguments = leading(cls, arguments, prog, "RUN")
        data, arguments = option(arguments, "--data")
        name, arguments = option(arguments, "--protocol")
        protocols: tuple[Evaluation, ...] = ()
        if name or arguments:
            from filmstrip import evals

            if name:
                usage = f"RUN --protocol {name} [options] [--data PATH]"
                protocols = (read(evals.protocol(name), arguments, prog, usage),)
            elif arguments[0] in HELP:
                leading(cls, arguments, prog, "RUN")
            else:
                raise UserError(
                    f"{arguments[0]} is an option of a protocol: add --protocol NAME; {evals.named_protocols()}"
                )
        return cls(run=folder, protocols=protocols, data=Path(data) if data else None)

    def __call__(self) -> None:
        from filmstrip import evals
        from filmstrip.report.generation import is_curve_point
        from filmstrip.report.run import run_report
        from filmstrip.runs import experiment
        from filmstrip.runs.config import read_config
        from filmstrip.runs.contents import CONFIG
        from filmstrip.runs.hub import is_on_hub

        run = Path(self.run)
        if not self.protocols and (is_on_hub(self.run) or not read_config(run / CONFIG).evals):
            raise UserError(
                f"{self.run} has no evaluation of its own: name one with --protocol; {evals.named_protocols()}"
            )
        for key, value in experiment.evaluate(self.run, self.protocols, self.data):
            if not is_curve_point(key):
                print(f"{key:<24} {value:.4f}", flush=True)
        if self.data is None:
            print(run_report(run))
