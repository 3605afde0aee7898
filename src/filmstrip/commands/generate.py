"""``filmstrip generate``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filmstrip.commands.command import Command, read
from filmstrip.commands.words import leading

if TYPE_CHECKING:
    from filmstrip.commands.work.generate import Request


@dataclass(frozen=True, kw_only=True)
class Generate(Command):
    """Sample video from a trained generator, into an mp4, gif, webp or a png with a row of frames for each sample."""

    usage = "RUN [--frames N] [--condition FILE|CLASS|ACTIONS ...] [--out sample.mp4] [options]"
    run: Path
    request: Request
    """What to make; its fields are the command's options, and the run's own settings of sampling their defaults."""

    @classmethod
    def parse(cls, words: Sequence[str], prog: str) -> Self:
        folder, words = leading(cls, words, prog, "RUN")
        from filmstrip.commands.work.generate import Request, default_request

        default = default_request(Path(folder))
        usage, description = cls.usage.partition(" ")[2], inspect.getdoc(cls)
        request = read(Request, words, f"{prog} {folder}", usage, default=default, description=description)
        return cls(run=Path(folder), request=request)

    def __call__(self) -> int:
        from filmstrip.commands.work.generate import generate

        return generate(self.run, self.request)
