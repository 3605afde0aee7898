"""``filmstrip anticipate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.bounds import Count, Rate, Share, Weight
from filmstrip.commands.command import Command, File, RunFolder


@dataclass(frozen=True, kw_only=True)
class Anticipate(Command):
    """Find the objects of a video that will be touched next, by which action and when."""

    usage = "RUN FILE [--at SECONDS... | --every SECONDS] [options]"
    run: RunFolder
    """Run folder of detection.next_contact."""
    video: File
    """Video to analyse."""
    at: tuple[Weight, ...] = ()
    """Times after which contacts are anticipated, in seconds; by default every ``every`` seconds and at the end."""
    every: Rate = 1.0
    """Time between two such moments, in seconds."""
    out: Path | None = None
    """Video to write with boxes, objects, actions and times drawn in: mp4, gif or webp."""
    top_k: Count = 5
    """Maximum number of contacts at a moment."""
    min_score: Share = 0.0
    """Minimum score of a contact; the run has one of its own."""
    json: bool = False
    """Whether to print one JSON object instead of text."""

    def __call__(self) -> None:
        from filmstrip.commands.work.anticipate import anticipate

        anticipate(self)
