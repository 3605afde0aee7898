"""``filmstrip predict``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.bounds import Count
from filmstrip.commands.command import Command, Files, Source


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Classify videos: the most probable classes of each file, and a timeline of its clips.

    A folder stands for all videos and images in it. With --out, rows are written as they come, so that nothing is
    lost if the command is stopped (of Parquet, at most the last minute if the machine fails).
    """

    usage = "RUN FILE|FOLDER|MANIFEST... [options]"
    run: Source
    """Run folder of a classifier, hf:OWNER/NAME, or a local folder in the Hub's layout, of a model that classifies
    video."""
    files: Files
    """Videos to classify, folders of them, or manifests."""
    top_k: Count = 5
    """Number of classes to print or write."""
    clips: Count = 4
    """Number of clips along the timeline."""
    json: bool = False
    """Whether to print one JSON object instead of text."""
    out: Path | None = None
    """Table to write in place of the text: .csv, .parquet or .json."""
    last: bool = False
    """Whether to take the weights of the last step, where the run kept its best ones (train.best)."""

    def __call__(self) -> int:
        from filmstrip.commands.work.predict import predict_files

        return predict_files(
            self.run,
            self.files,
            top_k=self.top_k,
            num_clips=self.clips,
            as_json=self.json,
            out=self.out,
            last=self.last,
        )
