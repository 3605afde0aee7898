"""``filmstrip visualize``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, CountOrZero, Rate, Seed, Weight, check_numbers
from filmstrip.commands.command import Command, RunFolder


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """How clips climb. Penalties are sums over pixels in 0..1. The score counts in units of its own gradient, whose
    root mean square over pixels is one at every step: so the same weights serve every network."""

    steps: Count = 256
    """Steps of gradient ascent."""
    lr: Rate = 0.05
    """Learning rate of Adam, on the pixels' logits."""
    space: Weight = 0.2
    """Weight of smoothness within frames, by the total variation: absolute differences of neighbouring pixels."""
    slow: Weight = 20.0
    """Weight of smoothness along time, by squared differences of neighbouring frames, in the slow clip: what is left
    is appearance and slow change."""
    fast: Weight = 0.2
    """The same in the fast clip."""
    jitter: CountOrZero = 4
    """Pixels by which the clip is shifted, at most, before each look: details that need an exact place go."""
    seed: Seed = 0
    """Decides the noise that both clips begin as, and how they are shifted on the way."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Visualize(Command):
    """Show what a classifier looks for: clips made to raise one class's score, a slow and a fast one side by side."""

    usage = "RUN --class CLASS [options]"
    run: RunFolder
    """A run folder of a classifier."""
    label: Annotated[str, tyro.conf.arg(name="class")]
    """The class, by name or number."""
    out: Path = Path("class.mp4")
    """mp4, gif or webp; or a png with a row of frames for each."""
    ascent: Annotated[Ascent, tyro.conf.arg(name="")] = field(default_factory=Ascent)
    fps: Rate = 8.0
    """Frames per second of the file."""

    def __call__(self) -> None:
        from filmstrip.commands.work.visualize import visualize

        visualize(self.run, self.label, self.out, self.ascent, self.fps)
