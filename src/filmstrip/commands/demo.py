"""``filmstrip demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Pretrain, fine-tune and compare four small systems, learn to generate, and write one report.

    Generation is part of it on the synthetic set only.
    """

    usage = "[options]"
    data: Path | None = None
    """A folder class_name/*.mp4, or a manifest; by default a synthetic set that is made first."""
    out: Path = Path("runs/demo")
    """Where the runs and report.html go."""

    def __call__(self) -> None:
        from filmstrip.commands.work.demo import run_demo

        print(run_demo(self.out, self.data))
