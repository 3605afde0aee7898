"""``filmstrip track``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filmstrip.commands.arguments import leading
from filmstrip.commands.command import Command, read

if TYPE_CHECKING:
    from filmstrip.commands.work.track import TrackRequest


@dataclass(frozen=True, kw_only=True)
class Track(Command):
    """Track the objects of a first mask through a film by the features of any encoder, without training.

    The film is a video file, or a folder of images. Films of any length are tracked while they are read.
    """

    usage = "ENCODER FILM --mask FIRST.png [--out tracked.mp4] [--masks FOLDER] [options]"
    encoder: str
    """Run folder, hf:OWNER/NAME, a short name such as dinov2, or a local folder in the Hub's layout."""
    film: Path
    request: TrackRequest
    """Mask, outputs and settings of the propagation; its fields are the command's options."""

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Self:
        encoder, arguments = leading(cls, arguments, prog, "ENCODER")
        film, arguments = leading(cls, arguments, f"{prog} {encoder}", "FILM")
        from filmstrip.commands.work.track import TrackRequest

        usage, description = cls.usage.partition(" FILM ")[2], inspect.getdoc(cls)
        request = read(TrackRequest, arguments, f"{prog} {encoder} {film}", usage, description=description)
        return cls(encoder=encoder, film=Path(film), request=request)

    def __call__(self) -> None:
        from filmstrip.commands.work.track import track_film

        track_film(self.encoder, self.film, self.request)
