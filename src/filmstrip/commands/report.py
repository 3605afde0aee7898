"""``filmstrip report``."""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.commands.command import Command, RunFolder


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write a run's report again, as of what its folder holds now: training and evaluating write it, too.

    It says what was run and what the run can do, with curves, predictions, and pictures of what it makes: samples,
    reconstructions, masked clips that it fills in. Of a folder of edited films (`filmstrip eval RUN --protocol
    video_edit --out FOLDER`), what was measured and voted, and the films side by side.
    """

    usage = "RUN|FOLDER [--no-pictures]"
    run: RunFolder
    """Run folder, or folder of edited films."""
    pictures: bool = True
    """Whether pictures of what the run makes, or films side by side, are made anew; otherwise those that are kept are
    shown."""

    def __call__(self) -> None:
        from filmstrip.data.edited_films import TABLE

        if (self.run / TABLE).is_file():
            from filmstrip.report.edits import edits_report

            print(edits_report(self.run, films=self.pictures))
            return
        from filmstrip.report.run import run_report

        if self.pictures:
            from filmstrip.runs.pictures import draw_run

            draw_run(self.run)
        print(run_report(self.run))
