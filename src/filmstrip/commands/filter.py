"""``filmstrip filter``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from filmstrip.bounds import AnyNumber, Count, PositiveShare
from filmstrip.commands.command import Command, Source


@dataclass(frozen=True, kw_only=True)
class Filter(Command):
    """Keep the captions that match their videos: of a table of ``filmstrip caption``, or of any manifest.

    Captions are judged by the matching head of BLIP or BLIP-2, or by their similarity in a model of video and text
    such as SigLIP. Videos without a caption left are dropped. The result is a manifest that training reads.
    """

    usage = "RUN TABLE --out KEPT [options]"
    run: Source
    """Run folder of a model of video and text; or hf:OWNER/NAME or a local folder in the Hub's layout (BLIP for
    retrieval, SigLIP, CLIP)."""
    table: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """Table of captions."""
    out: Path
    """Table to write, .parquet, .csv or .jsonl; the same command resumes one that was interrupted."""
    by: Literal["matching", "similarity"] | None = None
    """Judgement of captions: probability of a match (``matching``), or cosine of the angle between video and text; by
    default matching, where the model can."""
    threshold: AnyNumber | None = None
    """Minimum of what is kept; by default a probability of a match of 0.5."""
    share: PositiveShare | None = None
    """Share of all captions that is kept, the best, in place of a threshold."""
    frames: Count | None = None
    """Number of frames to look at, evenly over a clip; by default as in training."""
    batch_size: Count = 8
    """Number of captions judged at once."""

    def __call__(self) -> int:
        from filmstrip.commands.work.filter import filter_captions

        return filter_captions(self)
