"""``filmstrip eval``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.text import Text

from filmstrip.commands.arguments import HELP, leading, option, options_given
from filmstrip.commands.command import Command, read
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.evals.video_edit import VideoEditing
    from filmstrip.runs.evaluation import Evaluation
    from filmstrip.runs.predictions import PredictionTable

_OPTIONS = {
    "--protocol NAME": "Protocol to evaluate by, with its own options after it; by default all that the run has.",
    "--data PATH": "Other data than the run's own; needed for an encoder of the Hub.",
    "--predictions FILE": "Table of predictions to write, too: .csv, .parquet or .json.",
    "--top-k K": "Number of classes that the tables have for each file (5).",
    "--per-clip": "Rows of the single clips of each file, too, with their start and end in seconds.",
    "--by SYSTEM[:PRESET]": "Other method to try with the run's network, too (of video_edit); repeated for more.",
    "--last": "Weights of the last step, where the run kept its best ones (train.best); its folder keeps no result.",
}


@dataclass(frozen=True, kw_only=True)
class Eval(Command):
    """Evaluate a run, or an encoder of the Hub, by one protocol, or a run by all that it is configured with.

    Results on the run's own data are added to its metrics and its report, including curves over frames; those on
    other data (--data) are kept in its folder `evaluations/`. A protocol that classifies files also keeps
    predictions.csv (each file with its class and the most probable ones), classes.csv (figures of each class) and
    confusion.csv; those of a probe are in a folder `probes/`.
    """

    usage = (
        "RUN [--protocol NAME [options of the protocol]] [--data PATH] [--predictions FILE [--top-k K] [--per-clip]] "
        "[--by SYSTEM[:PRESET]]..."
    )
    run: str
    """Run folder, hf:OWNER/NAME, a short name such as dinov2, or a local folder in the Hub's layout."""
    protocols: tuple[Evaluation, ...] = ()
    """Protocols to evaluate by; if empty, those of the run."""
    data: Path | None = None
    table: PredictionTable
    last: bool = False
    """Whether the weights are those of the last step."""
    by: tuple[str, ...] = ()
    """Systems by which the run's network edits, too."""

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        if any(word in HELP for word in arguments[:1]):
            _print_help(cls, prog)
            raise SystemExit(0)
        folder, arguments = leading(cls, arguments, prog, "RUN")
        data, arguments = option(arguments, "--data")
        last, arguments = "--last" in arguments, [word for word in arguments if word != "--last"]
        by, arguments = _others(arguments)
        name, arguments = option(arguments, "--protocol")
        if not name and any(word in HELP for word in arguments):
            _print_help(cls, prog)
            raise SystemExit(0)
        from filmstrip import evals

        kind = evals.protocol(name) if name else None
        table, arguments = _table(arguments, kind)
        protocols: tuple[Evaluation, ...] = ()
        if kind is not None:
            usage = f"RUN --protocol {name} [options] [--data PATH]"
            if kind.classifies:
                usage += " [--predictions FILE] [--top-k K] [--per-clip]"
            protocols = (read(kind, arguments, prog, usage),)
        elif arguments:
            raise UserError(
                f"{arguments[0]} is an option of a protocol: add --protocol NAME; {evals.named_protocols()}"
            )
        if by and not any(isinstance(each, _editing()) for each in protocols):
            raise UserError("--by evaluates other methods of editing: add --protocol video_edit")
        data_path = Path(data) if data else None
        return cls(run=folder, protocols=protocols, data=data_path, table=table, last=last, by=by)

    def __call__(self) -> None:
        from filmstrip import evals, systems
        from filmstrip.report.generation import is_curve_point
        from filmstrip.report.run import run_report
        from filmstrip.runs import experiment
        from filmstrip.runs.config import read_config
        from filmstrip.runs.contents import CONFIG, is_run
        from filmstrip.runs.hub import is_on_hub

        run = Path(self.run)
        if not self.protocols and (is_on_hub(self.run) or not read_config(run / CONFIG).evals):
            raise UserError(
                f"{self.run} has no evaluation of its own: name one with --protocol; {evals.named_protocols()}"
            )
        by = {address.rpartition(".")[2]: systems.find(address).objective for address in self.by}
        found = experiment.evaluate(self.run, self.protocols, self.data, self.table, last=self.last, by=by)
        for key, value in found:
            if not is_curve_point(key):
                print(f"{key:<24} {value:.4f}", flush=True)
        if self.table.path is not None:
            print(self.table.path)
        if is_run(self.run) and not self.last:
            print(run_report(run))
        self._report_edits()

    def _report_edits(self) -> None:
        """Write the page of the edited films that were kept."""
        from filmstrip.report.edits import edits_report

        for protocol in self.protocols:
            if isinstance(protocol, _editing()) and protocol.out is not None:
                print(edits_report(protocol.out))


def _editing() -> type[VideoEditing]:
    from filmstrip.evals.video_edit import VideoEditing

    return VideoEditing


def _others(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The systems that ``--by`` names, and the other arguments.

    Raises:
        UserError: there is no such system, or two have the same name.
    """
    found: list[str] = []
    while True:
        address, arguments = option(arguments, "--by")
        if address is None:
            return tuple(found), list(arguments)
        found.append(address)
        if len({name.rpartition(".")[2] for name in found}) < len(found):
            raise UserError(f"--by {address} is named twice, or another method is called the same")


def _print_help(command: type[Command], prog: str) -> None:
    """Print the command's help, with a line for each protocol."""
    from rich.console import Console
    from rich.table import Table

    from filmstrip import evals

    print(f"usage: {prog} {command.usage}\n\n{inspect.getdoc(command)}\n")
    options = Table("options", "", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, said in _OPTIONS.items():
        options.add_row(name, Text(said))
    rows = Table("protocol", "what it measures", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, said in evals.summaries().items():
        rows.add_row(name, Text(re.sub(r":\w+:`[~.]*(?:\w+\.)*(\w+)`", r"\1", said).replace("``", "")))
    console = Console()
    for table in (options, rows):
        console.print(table)
        console.print()
    print(f"`{prog} RUN --protocol NAME --help` shows the options of a protocol.")


def _table(arguments: list[str], protocol: type[Evaluation] | None) -> tuple[PredictionTable, list[str]]:
    """The table of predictions that is asked for, and the other arguments: those of a protocol that does not classify
    are its own.

    Raises:
        UserError: a value is invalid.
    """
    from filmstrip.runs.predictions import PredictionTable

    if protocol is not None and not protocol.classifies:
        if given := options_given(arguments) & {"predictions", "per_clip"}:
            raise UserError(
                f"--{min(given).replace('_', '-')} goes with protocols that classify files (multi_view, zero_shot, "
                f"probes), and {protocol.__name__} does not"
            )
        return PredictionTable(), arguments
    path, arguments = option(arguments, "--predictions")
    top_k, arguments = option(arguments, "--top-k")
    if top_k is not None and not top_k.isdecimal():
        raise UserError(f"--top-k {top_k}: expected a whole number, at least 1")
    per_clip = "--per-clip" in arguments
    told = {} if top_k is None else {"top_k": int(top_k)}
    table = PredictionTable(path=Path(path) if path else None, per_clip=per_clip, **told)
    return table, [word for word in arguments if word != "--per-clip"]
