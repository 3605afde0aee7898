"""``filmstrip explain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.commands.command import Command, File, RunFolder


@dataclass(frozen=True, kw_only=True)
class Explain(Command):
    """Show where a classifier looks: a clip beside itself with heat over it, as a video.

    A transformer's heat is its attention, rolled out through all layers (and the same for every class); a
    convolutional network's is Grad-CAM of the class.
    """

    usage = "RUN FILE [options]"
    run: RunFolder
    """A run folder of a classifier."""
    video: File
    """The video to look at; its middle clip is shown."""
    out: Path = Path("overlay.mp4")
    """Where to write (mp4, gif or webp)."""
    label: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """The class to look for, by name or number; by default the one that is seen."""

    def __call__(self) -> None:
        from filmstrip.commands.work.explain import explain_file

        found = explain_file(self.run, self.video, self.out, class_name=self.label)
        print(f"{found.label} ({found.probability:.0%}), {found.method}: {self.out}")
