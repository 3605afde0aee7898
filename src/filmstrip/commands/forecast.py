"""``filmstrip forecast``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.bounds import Count, Rate
from filmstrip.commands.command import Command, File, RunFolder


@dataclass(frozen=True, kw_only=True)
class Forecast(Command):
    """Forecast the next steps of a procedure, with probabilities, along a video's timeline."""

    usage = "RUN FILE [options]"
    run: RunFolder
    """Run folder of a procedures system trained for forecast or anticipation."""
    video: File
    """Video to analyse."""
    top_k: Count = 3
    """Number of steps to print for each position."""
    samples: Count = 1
    """Number of samples whose probabilities are averaged."""
    clip_seconds: Rate | None = None
    """Duration of a clip, in seconds; by default as in training."""
    encoder: str | None = None
    """Encoder of the clips; by default the encoder of the run's features."""
    json: bool = False
    """Whether to print one JSON object instead of text."""
    out: Path | None = None
    """Figure to write: png, svg or pdf."""

    def __call__(self) -> None:
        from filmstrip.commands.work.forecast import forecast

        forecast(self)
