"""``filmstrip find``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, Share
from filmstrip.commands.command import Command, File, RunFolder

Sentences = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="QUERY...")]


@dataclass(frozen=True, kw_only=True)
class Find(Command):
    """Find the moments of a video that sentences describe, with their times, and its highlights for each."""

    usage = 'RUN FILE "QUERY" ["QUERY" ...] [options]'
    run: RunFolder
    """Run folder of a grounding system."""
    video: File
    """Video to search."""
    queries: Sentences
    """Sentences about the video."""
    top_k: Count = 3
    """Number of moments to print for each sentence."""
    max_overlap: Share = 0.7
    """Maximum overlap of a moment with a likelier one of the same sentence; what overlaps more is left out."""
    encoder: str | None = None
    """Encoder of the video's clips; by default the encoder of the run's features."""
    text_encoder: Path | None = None
    """Local folder of the text encoder; by default the run's own."""
    json: bool = False
    """Whether to print one JSON object instead of text."""
    out: tuple[Path, ...] = ()
    """Files to write: a timeline (png, svg, pdf), subtitles (srt, vtt) or all results (json)."""

    def __call__(self) -> None:
        from filmstrip.commands.work.find import find

        find(self)
