"""``filmstrip rate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Port
from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Rate(Command):
    """Let people say which of two edits is better, on a web page on this machine: pairs of films without names.

    The films are those of `filmstrip eval RUN --protocol video_edit --by SYSTEM --out FOLDER`. Each vote is written
    to FOLDER/votes.csv at once; Ctrl-C ends it, and writes FOLDER/report.html, which has the votes with Wilson's
    intervals. Needs filmstrip[studio].
    """

    usage = "FOLDER [--against METHOD] [options]"
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of edited films."""
    against: str | None = None
    """Method that is compared with every other one; by default all are compared with one another."""
    host: str = "127.0.0.1"
    """Address to serve at. Any but 127.0.0.1 and localhost lets other machines in, who then need the token in the
    printed address."""
    port: Port = 8421
    """Port to serve at."""

    def __call__(self) -> None:
        from filmstrip.report.edits import edits_report
        from filmstrip.studio.serve import serve_rating

        serve_rating(self.folder, against=self.against, host=self.host, port=self.port)
        print(edits_report(self.folder, films=False))
