"""``filmstrip ask``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, Seed, Weight
from filmstrip.commands.command import Command, File, RunFolder

Question = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="QUESTION")]


@dataclass(frozen=True, kw_only=True)
class Ask(Command):
    """Ask a language model about a video: one question, or a conversation on the terminal without one."""

    usage = "RUN FILE [QUESTION] [options]"
    run: RunFolder
    """Run folder of a language model that sees (language.*)."""
    video: File
    """Video or image to ask about."""
    question: Question = None
    """Question; none for a conversation, which an empty line ends."""
    frames: Count | None = None
    """Number of frames to look at, evenly over the video; by default as in training."""
    max_tokens: Count = 128
    """Maximum number of tokens of an answer."""
    temperature: Weight = 0.0
    """Temperature of the words that are drawn; zero takes the most probable ones."""
    seed: Seed = 0
    """Seed of what is drawn."""
    json: bool = False
    """Whether to print one JSON object instead of text; it needs a question."""
    out: Path | None = None
    """File that the conversation is written to, as JSON."""

    def __call__(self) -> None:
        from filmstrip.commands.work.ask import ask

        ask(self)
