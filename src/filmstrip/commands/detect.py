"""``filmstrip detect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import AnyNumber, Count, Rate, Share
from filmstrip.commands.command import Command, File, RunFolder
from filmstrip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Detect(Command):
    """Classify the actions within actors' boxes of a video, and link the boxes into tracks.

    Boxes are those of a table, or of a detector of persons. A live source (rtsp://..., /dev/video0, - for the
    standard input, or anything with --live) is followed with a detector until it ends or Ctrl-C.

    What an actor does is also told as moments with their start and end: where the probability of a class, on a
    straight line from one time that was classified to the next, is at least the threshold.
    """

    usage = "RUN FILE --boxes TABLE | --detector DETECTOR [options]"
    run: RunFolder
    """Run folder of a detection system."""
    video: File
    """Video to analyse, or live source."""
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="TABLE")] = None
    """CSV table of boxes in AVA's format: video, second, left, top, right, bottom (fractions of the frame),
    optionally followed by a class (ignored) and a detector's score or a person's number. The video is the file's name
    without its extension."""
    detector: Annotated[str, tyro.conf.arg(metavar="DETECTOR")] = ""
    """Detector of persons, in place of a table: a folder in the Hub's layout or hf:OWNER/NAME (DETR, YOLOS, RT-DETR
    and their relatives), or ultralytics:FILE."""
    detector_class: str = "person"
    """Name of the detector's class whose boxes are used."""
    trust_detector: bool = False
    """Whether ultralytics may load a pickled file (.pt), which can run any code."""
    every: Rate | None = None
    """Time from one moment whose actions are classified to the next, in seconds: with a detector, by default 1; with
    a table, boxes are interpolated between its key frames, by default not."""
    save_boxes: Path | None = None
    """Table to write with the boxes of the detector, as --boxes reads it."""
    live: bool = False
    """Whether to follow the source as one that never ends."""
    seconds: Rate | None = None
    """Time after which a live source is left, in seconds; by default never."""
    out: Path | None = None
    """Video to write with the boxes and actions drawn in: mp4, gif or webp."""
    csv: Path | None = None
    """CSV file to write with the score of every class in every box, in the format of AVA's evaluation: video, second,
    left, top, right, bottom, class number, score."""
    top_k: Count = 3
    """Number of classes to print for each actor."""
    threshold: Share = 0.5
    """Minimum probability of classes that are drawn, where the most probable one is always drawn, and of moments."""
    min_score: AnyNumber = 0.8
    """Minimum score of boxes in the table; others are ignored."""
    offset: AnyNumber = 0.0
    """Time in the table, in seconds, that corresponds to the start of the file."""
    min_iou: Share = 0.3
    """Minimum intersection over union of an actor's boxes in successive key frames."""
    max_gap: Rate = 2.0
    """Maximum time between successive boxes of an actor, in seconds."""
    json: bool = False
    """Whether to print one JSON object instead of text; of a live source, one on each line."""

    def __call__(self) -> None:
        if bool(self.detector) == (self.boxes is not None):
            raise UserError("detect needs boxes: give --boxes TABLE or --detector DETECTOR, one of them")
        if self.save_boxes is not None and not self.detector:
            raise UserError("--save-boxes writes the boxes of a detector: give --detector, or leave it out")
        from filmstrip.video.live import is_live_source

        if self.live or is_live_source(self.video):
            from filmstrip.commands.work.live_detection import detect_live

            detect_live(self)
            return
        from filmstrip.commands.work.detect import detect

        detect(self)
