"""``filmstrip generate``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filmstrip.commands.arguments import leading
from filmstrip.commands.command import Command, read

if TYPE_CHECKING:
    from filmstrip.commands.work.continue_text import TextRequest
    from filmstrip.commands.work.generate import SamplingRequest


@dataclass(frozen=True, kw_only=True)
class Generate(Command):
    """Sample video from a trained generator, as an mp4, gif or webp, or as a png with a row of frames per sample.

    A language model of text (language.lwm_text) continues a text instead.
    """

    usage = "RUN [--frames N] [--condition FILE|CLASS|ACTIONS ...] [--text TEXT] [--out sample.mp4] [options]"
    run: Path
    request: SamplingRequest | TextRequest
    """Sampling request; its fields are the command's options, with the run's own sampling settings as defaults."""

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        folder, arguments = leading(cls, arguments, prog, "RUN")
        from filmstrip.commands.work.generate import SamplingRequest, continues_text, default_request

        usage, description = cls.usage.partition(" ")[2], inspect.getdoc(cls)
        if continues_text(Path(folder)):
            from filmstrip.commands.work.continue_text import TextRequest

            told = read(
                TextRequest, arguments, f"{prog} {folder}", "[--text TEXT] [options]", description=description
            )
            return cls(run=Path(folder), request=told)
        default = default_request(Path(folder))
        request = read(
            SamplingRequest, arguments, f"{prog} {folder}", usage, default=default, description=description
        )
        return cls(run=Path(folder), request=request)

    def __call__(self) -> int:
        from filmstrip.commands.work.generate import SamplingRequest, generate

        if isinstance(self.request, SamplingRequest):
            return generate(self.run, self.request)
        from filmstrip.commands.work.continue_text import continue_text

        return continue_text(self.run, self.request)
