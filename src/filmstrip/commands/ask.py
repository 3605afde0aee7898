"""``filmstrip ask``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, Seed, Weight
from filmstrip.commands.command import Command, RunFolder

Inputs = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE... [QUESTION]")]


@dataclass(frozen=True, kw_only=True)
class Ask(Command):
    """Ask a language model about a video: one question, or a conversation on the terminal without one.

    A language model of text alone is asked about text files (.txt, .md, .jsonl), or about nothing but the question.

    Of several images and videos each stands, in order, where the question has <video> or <image>, or in front of it.
    """

    usage = "RUN FILE... [QUESTION] [options]"
    run: RunFolder
    """Run folder of a language model (language.*)."""
    inputs: Inputs
    """Videos and images, or texts, to ask about, and the question; without one there is a conversation, which an
    empty line ends."""
    frames: Count | None = None
    """Number of frames to look at, evenly over the video; by default as in training."""
    max_tokens: Count = 128
    """Maximum number of tokens of an answer."""
    temperature: Weight = 0.0
    """Temperature of the words that are drawn; zero takes the most probable ones."""
    seed: Seed = 0
    """Seed of what is drawn."""
    context: Count = 1
    """Number of processes that share the tokens of what is read, and the memory for them; torchrun starts as many."""
    compile: bool = False
    """Whether to compile the step that a language model takes for each token (``torch.compile``): tokens come faster,
    after a wait for the compiler."""
    json: bool = False
    """Whether to print one JSON object instead of text; it needs a question."""
    out: Path | None = None
    """File that the conversation is written to, as JSON."""

    @property
    def files(self) -> tuple[str, ...]:
        """The videos and images: all inputs but the question."""
        return self.inputs if self.question is None else self.inputs[:-1]

    @property
    def question(self) -> str | None:
        """The last input, if it is no file and does not look like the name of one."""
        last = self.inputs[-1] if self.inputs else ""
        named = Path(last).suffix[1:].isalnum() and not any(letter.isspace() for letter in last)
        return None if not last or named or Path(last).exists() else last

    def __call__(self) -> None:
        from filmstrip.commands.work.ask import ask

        ask(self)
