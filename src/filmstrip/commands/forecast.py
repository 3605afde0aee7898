"""``filmstrip forecast``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.bounds import Count, Rate
from filmstrip.commands.command import Command, File, RunFolder


@dataclass(frozen=True, kw_only=True)
class Forecast(Command):
    """Say which steps come next, with their probabilities, along a video's timeline."""

    usage = "RUN FILE [options]"
    run: RunFolder
    """A run folder of procedures, trained for forecast or anticipation."""
    video: File
    """The video to look at."""
    top_k: Count = 3
    """How many steps to name for each place."""
    samples: Count = 1
    """Draws whose probabilities are averaged."""
    clip_seconds: Rate | None = None
    """How long a clip is; by default as in training."""
    encoder: str | None = None
    """What encodes clips; by default what encoded the run's features."""
    json: bool = False
    """Print one JSON object instead of text."""
    out: Path | None = None
    """Also draw it: a png, svg or pdf."""

    def __call__(self) -> None:
        from filmstrip.commands.work.forecast import forecast

        forecast(self)
