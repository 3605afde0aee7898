"""``filmstrip studio``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, Port
from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Studio(Command):
    """Show runs, films and predictions as web pages on this machine, label segments of films, and train on them.

    Needs filmstrip[studio]. Ctrl-C ends it, and asks the trainings that it started to save and stop.
    """

    usage = "[RUNS] [--videos FOLDER] [options]"
    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")] = Path("runs")
    """Folder that holds run folders; only runs below it are shown and asked."""
    videos: Path | None = None
    """Folder of videos to label; labels are kept there, in segments.csv."""
    host: str = "127.0.0.1"
    """Address to serve at. Any but 127.0.0.1 and localhost lets other machines in, who then need the token in the
    printed address."""
    port: Port = 8420
    """Port to serve at."""
    max_upload: Count = 2048
    """Maximum size of an uploaded film, in MiB."""

    def __call__(self) -> None:
        from filmstrip.studio.serve import serve

        serve(self.runs, videos=self.videos, host=self.host, port=self.port, max_upload=self.max_upload * 2**20)
