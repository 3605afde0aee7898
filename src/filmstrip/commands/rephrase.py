"""``filmstrip rephrase``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, PositiveShare, Seed, Weight
from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Rephrase(Command):
    """Say captions in other words: of a table of ``filmstrip caption``, or of any manifest (LaViLa's rephraser).

    The result is a manifest that training reads: its column ``synthetic`` holds the paraphrases, behind the captions
    that a model had written before. No video is read.
    """

    usage = "MODEL TABLE --out MORE [options]"
    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Folder in the Hub's layout of an encoder-decoder of text that paraphrases, such as a T5, with its tokenizer."""
    table: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """Table of captions."""
    out: Path
    """Table to write, .parquet, .csv or .jsonl; the same command resumes one that was interrupted."""
    number: Count = 3
    """Maximum number of paraphrases of a caption; only those that differ from it and from one another count."""
    split: str | None = None
    """Name of the split whose captions are rephrased, such as train; by default all are."""
    prompt: str = "paraphrase: "
    """Beginning of what the model is asked, before a caption."""
    groups: Count = 20
    """Number of texts that are written of a caption, of which the most probable ones are kept."""
    diversity: Weight = 0.7
    """Penalty on the log-probability of a token for each text of the caption that has taken it in this step (diverse
    beam search)."""
    temperature: Weight = 0.0
    """Temperature at which tokens are drawn in place of that search; zero for the search."""
    top_p: PositiveShare | None = None
    """Cumulative probability of the most probable tokens that are drawn from (nucleus sampling)."""
    seed: Seed = 0
    """Seed of what is drawn."""
    max_tokens: Count = 77
    """Maximum number of tokens of a paraphrase."""
    batch_size: Count = 8
    """Number of captions rephrased at once."""

    def __call__(self) -> int:
        from filmstrip.commands.work.rephrase import rephrase

        return rephrase(self)
