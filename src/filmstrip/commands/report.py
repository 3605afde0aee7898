"""``filmstrip report``."""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.commands.command import Command, RunFolder


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write a run's report again, as of what its folder holds now: training and evaluating write it, too.

    It says what was run and what the run can do, with curves, predictions, and pictures of what it makes: samples,
    reconstructions, masked clips that it fills in.
    """

    usage = "RUN [--no-pictures]"
    run: RunFolder
    """Run folder."""
    pictures: bool = True
    """Whether pictures of what the run makes are drawn anew; otherwise those that it keeps are shown."""

    def __call__(self) -> None:
        from filmstrip.report.run import run_report

        if self.pictures:
            from filmstrip.runs.pictures import draw_run

            draw_run(self.run)
        print(run_report(self.run))
