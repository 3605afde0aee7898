"""``filmstrip predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.bounds import Count, Rate
from filmstrip.commands.command import Command, Files, Source


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Classify videos: the most probable classes of each file, and a timeline of its clips.

    A folder stands for all videos and images in it. A live source (rtsp://..., /dev/video0, - for the standard input,
    or anything with --live) is followed: its newest moments are classified until it ends or Ctrl-C. With --out, rows
    are written as they come, so that nothing is lost if the command is stopped (of Parquet, at most the last minute
    if the machine fails).
    """

    usage = "RUN FILE|FOLDER|MANIFEST|SOURCE... [options]"
    run: Source
    """Run folder of a classifier, hf:OWNER/NAME, or a local folder in the Hub's layout, of a model that classifies
    video."""
    files: Files
    """Videos to classify, folders of them, manifests, addresses (https://...), or one live source."""
    top_k: Count = 5
    """Number of classes to print or write."""
    clips: Count = 4
    """Number of clips along the timeline."""
    fps: Rate | None = None
    """Frames per second of films that are folders of images; given, every folder of images is a film, otherwise those
    whose images are numbered without gaps are, of 25 frames per second."""
    live: bool = False
    """Whether to follow the source, such as http://camera/video.mjpg, as one that never ends."""
    every: Rate = 1.0
    """Minimum time from one prediction of a live source to the next, in seconds."""
    window: Rate | None = None
    """Length of what is classified of a live source, in seconds; by default that of the run's clips, or 2 for clips
    from all over a video."""
    seconds: Rate | None = None
    """Time after which a live source is left, in seconds; by default never."""
    json: bool = False
    """Whether to print one JSON object instead of text; of a live source, one on each line."""
    out: Path | None = None
    """Table to write in place of the text: .csv, .parquet or .json."""
    last: bool = False
    """Whether to take the weights of the last step, where the run kept its best ones (train.best)."""

    def __call__(self) -> int:
        from filmstrip.video.live import is_live_source

        if self.live or any(map(is_live_source, self.files)):
            from filmstrip.commands.work.live import predict_live

            return predict_live(self)
        from filmstrip.commands.work.predict import predict_files

        return predict_files(
            self.run,
            self.files,
            top_k=self.top_k,
            num_clips=self.clips,
            as_json=self.json,
            out=self.out,
            fps=self.fps,
            last=self.last,
        )
