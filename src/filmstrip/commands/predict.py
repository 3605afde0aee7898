"""``filmstrip predict``."""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.bounds import Count
from filmstrip.commands.command import Command, Files, RunFolder


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Name what happens in videos: the best classes of each file, and a timeline of its clips."""

    usage = "RUN FILE... [options]"
    run: RunFolder
    """A run folder of a classifier."""
    files: Files
    """Videos to look at."""
    top_k: Count = 5
    """How many classes to name."""
    clips: Count = 4
    """Clips along the timeline."""
    json: bool = False
    """Print one JSON object instead of text."""

    def __call__(self) -> int:
        from filmstrip.commands.work.predict import predict_files

        return predict_files(self.run, self.files, top_k=self.top_k, num_clips=self.clips, as_json=self.json)
