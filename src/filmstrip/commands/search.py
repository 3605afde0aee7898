"""``filmstrip search``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, Rate
from filmstrip.commands.command import Command, Source


@dataclass(frozen=True, kw_only=True)
class Search(Command):
    """Find videos and images, and moments in them, by text, with a model of video and text such as SigLIP.

    The first search encodes every file and keeps the vectors on disk; later ones encode only files that are new or
    have changed.
    """

    usage = 'RUN FILE|FOLDER|MANIFEST "TEXT"... [options]'
    run: Source
    """Run folder of a model of video and text; or hf:OWNER/NAME or a local folder in the Hub's layout (SigLIP,
    CLIP)."""
    videos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE|FOLDER|MANIFEST")]
    """Videos or images to search."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
    """Description of what to find; several are searched for in turn."""
    top_k: Count = 10
    """Number of results to print."""
    moments: bool = False
    """Whether results are moments, several of one file perhaps, instead of files with their best moment."""
    seconds: Rate = 4.0
    """Length of a moment, in seconds; a shorter video is one moment."""
    index: Path | None = None
    """Folder of the vectors; by default in the run folder, or for a model of the Hub in the cache."""
    batch_size: Count = 8
    """Number of moments encoded at once."""
    json: bool = False
    """Whether to print one JSON object instead of text."""

    def __call__(self) -> int:
        from filmstrip.commands.work.search import search

        return search(self)
