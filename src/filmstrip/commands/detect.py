"""``filmstrip detect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import AnyNumber, Count, Rate, Share
from filmstrip.commands.command import Command, File, RunFolder


@dataclass(frozen=True, kw_only=True)
class Detect(Command):
    """Say what everybody in a video does, within given boxes that are followed from key frame to key frame."""

    usage = "RUN FILE --boxes TABLE [options]"
    run: RunFolder
    """A run folder of detection."""
    video: File
    """The video to look at."""
    boxes: Annotated[Path, tyro.conf.arg(metavar="TABLE")]
    """A table, as AVA's: video, second, left, top, right, bottom (shares of the frame), then maybe a class, which is
    not read, and a detector's score or a person. The video is called as its file."""
    out: Path | None = None
    """Also draw it: an mp4, gif or webp."""
    csv: Path | None = None
    """Also write the score of every class in every box, as AVA's evaluation reads it: video, second, left, top,
    right, bottom, number of the class, score."""
    top_k: Count = 3
    """How many classes to name for each actor."""
    threshold: Share = 0.5
    """Least probability of classes that are drawn; the likeliest always is."""
    min_score: AnyNumber = 0.8
    """Boxes with lower scores are left out."""
    offset: AnyNumber = 0.0
    """The table's second at which the file begins."""
    min_iou: Share = 0.3
    """Least overlap of an actor's box with the one in the next key frame."""
    max_gap: Rate = 2.0
    """Most seconds from an actor's box to the next."""
    json: bool = False
    """Print one JSON object instead of text."""

    def __call__(self) -> None:
        from filmstrip.commands.work.detect import detect

        detect(self)
