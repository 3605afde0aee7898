"""``filmstrip predict``."""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.bounds import Count
from filmstrip.commands.command import Command, Files, RunFolder


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Classify videos: the most probable classes of each file, and a timeline of its clips."""

    usage = "RUN FILE... [options]"
    run: RunFolder
    """Run folder of a classifier."""
    files: Files
    """Videos to classify."""
    top_k: Count = 5
    """Number of classes to print."""
    clips: Count = 4
    """Number of clips along the timeline."""
    json: bool = False
    """Whether to print one JSON object instead of text."""

    def __call__(self) -> int:
        from filmstrip.commands.work.predict import predict_files

        return predict_files(self.run, self.files, top_k=self.top_k, num_clips=self.clips, as_json=self.json)
