"""``filmstrip explain``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.commands.command import Command, File, Source


@dataclass(frozen=True, kw_only=True)
class Explain(Command):
    """Show where a classifier looks: a video of a clip beside the same clip with a heat map over it.

    Each of the two pictures has at least 448 x 448 pixels. The heat map of a transformer is attention rollout through
    all layers (independent of the class); that of a convolutional network is Grad-CAM of the class.
    """

    usage = "RUN FILE [options]"
    run: Source
    """Run folder of a classifier, hf:OWNER/NAME, or a local folder in the Hub's layout."""
    video: File
    """Video to analyse; its middle clip is shown."""
    out: Path = Path("overlay.mp4")
    """Video to write: mp4, gif or webp."""
    label: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Class to explain, by name or number; by default the predicted class."""

    def __call__(self) -> None:
        from filmstrip.commands.work.explain import explain_file

        found = explain_file(self.run, self.video, self.out, class_name=self.label)
        print(f"{found.label} ({found.probability:.0%}), {found.method}: {self.out}")
