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
    """Gradient ascent on clips. Penalties are sums over pixels in 0..1. The score's gradient is scaled to a root mean
    square of one over pixels at every step, so that the same weights serve every network."""

    steps: Count = 256
    """Number of steps of gradient ascent."""
    lr: Rate = 0.05
    """Learning rate of Adam on the pixels' logits."""
    space: Weight = 0.2
    """Weight of spatial smoothness: total variation, the absolute differences of neighbouring pixels."""
    slow: Weight = 20.0
    """Weight of temporal smoothness in the slow clip: squared differences of neighbouring frames, so that appearance
    and slow change remain."""
    fast: Weight = 0.2
    """Weight of temporal smoothness in the fast clip."""
    jitter: CountOrZero = 4
    """Maximum shift of the clip before each step, in pixels: suppresses details that depend on an exact position."""
    seed: Seed = 0
    """Random seed of the initial noise, which both clips share, and of the shifts."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Visualize(Command):
    """Show what a classifier looks for: clips optimised for one class's score, a slow and a fast one side by side."""

    usage = "RUN --class CLASS [options]"
    run: RunFolder
    """Run folder of a classifier."""
    label: Annotated[str, tyro.conf.arg(name="class")]
    """Class, by name or number."""
    out: Path = Path("class.mp4")
    """File to write: mp4, gif or webp, or a png with a row of frames for each clip."""
    ascent: Annotated[Ascent, tyro.conf.arg(name="")] = field(default_factory=Ascent)
    fps: Rate = 8.0
    """Frames per second of the file."""

    def __call__(self) -> None:
        from filmstrip.commands.work.visualize import visualize

        visualize(self.run, self.label, self.out, self.ascent, self.fps)
