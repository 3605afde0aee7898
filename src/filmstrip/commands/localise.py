"""``filmstrip localise``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.bounds import Count, Share
from filmstrip.commands.command import Command, File, RunFolder


@dataclass(frozen=True, kw_only=True)
class Localise(Command):
    """Find the actions of an untrimmed video with their start and end; its features are computed on the way."""

    usage = "RUN FILE [options]"
    run: RunFolder
    """Run folder of a localisation system that was trained on features of `filmstrip encode`."""
    video: File
    """Video to search."""
    min_score: Share = 0.3
    """Minimum score of an action."""
    top_k: Count = 100
    """Maximum number of actions, those of the highest scores."""
    encoder: str | None = None
    """Encoder of the video's clips; by default the encoder of the run's features."""
    json: bool = False
    """Whether to print one JSON object instead of text."""
    out: tuple[Path, ...] = ()
    """Files to write: a timeline (png, svg, pdf), subtitles (srt, vtt) or all actions (json)."""

    def __call__(self) -> None:
        from filmstrip.commands.work.localise import localise

        localise(self)
