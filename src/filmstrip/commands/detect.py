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
    """Classify the actions within the provided actor boxes of a video, and link the boxes into tracks.

    What an actor does is also told as moments with their start and end: where the probability of a class, on a
    straight line from one time that was classified to the next, is at least the threshold.
    """

    usage = "RUN FILE --boxes TABLE [options]"
    run: RunFolder
    """Run folder of a detection system."""
    video: File
    """Video to analyse."""
    boxes: Annotated[Path, tyro.conf.arg(metavar="TABLE")]
    """CSV table of boxes in AVA's format: video, second, left, top, right, bottom (fractions of the frame),
    optionally followed by a class (ignored) and a detector's score or a person's number. The video is the file's name
    without its extension."""
    out: Path | None = None
    """Video to write with the boxes and actions drawn in: mp4, gif or webp."""
    csv: Path | None = None
    """CSV file to write with the score of every class in every box, in the format of AVA's evaluation: video, second,
    left, top, right, bottom, class number, score."""
    top_k: Count = 3
    """Number of classes to print for each actor."""
    threshold: Share = 0.5
    """Minimum probability of classes that are drawn, where the most probable one is always drawn, and of moments."""
    every: Rate | None = None
    """Time from one classification to the next between key frames, in seconds, with boxes on a straight line; by
    default key frames alone are classified."""
    min_score: AnyNumber = 0.8
    """Minimum score of boxes in the table; others are ignored."""
    offset: AnyNumber = 0.0
    """Time in the table, in seconds, that corresponds to the start of the file."""
    min_iou: Share = 0.3
    """Minimum intersection over union of an actor's boxes in successive key frames."""
    max_gap: Rate = 2.0
    """Maximum time between successive boxes of an actor, in seconds."""
    json: bool = False
    """Whether to print one JSON object instead of text."""

    def __call__(self) -> None:
        from filmstrip.commands.work.detect import detect

        detect(self)
