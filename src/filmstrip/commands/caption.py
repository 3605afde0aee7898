"""``filmstrip caption``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, CountOrZero, PositiveShare, Rate, Seed, Weight
from filmstrip.commands.command import Command, Source


@dataclass(frozen=True, kw_only=True)
class Caption(Command):
    """Write a caption for every video and image, with a captioner such as BLIP or a language model that sees.

    The table is a manifest that training reads: its column ``caption`` holds the captions that a video had before
    (``web``) and those that were written (``synthetic``), which ``filmstrip filter`` judges.
    """

    usage = "RUN FILE|FOLDER|MANIFEST --out TABLE [options]"
    run: Source
    """Run folder of a captioner (BLIP, BLIP-2, OmniVL) or of a language model that sees; or hf:OWNER/NAME or a folder
    in the Hub's layout of a BLIP that writes captions."""
    videos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE|FOLDER|MANIFEST")]
    """Videos or images to describe."""
    out: Path
    """Table to write, .parquet, .csv or .jsonl; the same command resumes one that was interrupted."""
    number: Count = 1
    """Number of captions of a clip; several differ only if they are drawn (temperature)."""
    prompt: str = ""
    """Beginning of a captioner's captions, such as "a picture of"; the question to a language model."""
    frames: Count | None = None
    """Number of frames to look at, evenly over a clip; by default as in training."""
    seconds: Rate | None = None
    """Length of the clips that each get a caption, in seconds; by default a video is one clip."""
    min_tokens: CountOrZero = 0
    """Minimum number of tokens of a caption."""
    max_tokens: Count = 20
    """Maximum number of tokens of a caption."""
    beams: Count | None = None
    """Number of beams; by default 3 for a captioner whose captions are not drawn."""
    temperature: Weight = 0.0
    """Temperature at which tokens are drawn; zero takes the most probable captions."""
    top_p: PositiveShare | None = None
    """Cumulative probability of the most probable tokens that are drawn from (nucleus sampling)."""
    repetition: Rate = 1.0
    """Divisor of the logits of tokens that a caption has already."""
    seed: Seed = 0
    """Seed of what is drawn."""
    batch_size: Count = 8
    """Number of clips described at once."""
    compile: bool = False
    """Whether to compile the step that a language model takes for each token (``torch.compile``): tokens come faster,
    after a wait for the compiler."""

    def __call__(self) -> int:
        from filmstrip.commands.work.caption import caption

        return caption(self)
