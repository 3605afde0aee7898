"""``filmstrip demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Pretrain, fine-tune and compare four small systems, train a generator, and write one report.

    The generator is trained on the synthetic dataset only.
    """

    usage = "[options]"
    data: Path | None = None
    """Folder class_name/*.mp4, or manifest; by default a synthetic dataset that is generated first."""
    out: Path = Path("runs/demo")
    """Output folder of the runs and report.html."""

    def __call__(self) -> None:
        from filmstrip.commands.work.demo import run_demo

        print(run_demo(self.out, self.data))
