"""``filmstrip bench``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from filmstrip.commands.command import Command
from filmstrip.commands.words import run_from

if TYPE_CHECKING:
    from filmstrip.runs.config import Run


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measure a preset on this machine: loading, step time, memory, achieved over the machine's limit."""

    usage = "SYSTEM[:PRESET] [--data PATH] [options of the run]"
    run: Run

    @classmethod
    def parse(cls, words: Sequence[str], prog: str) -> Self:
        run, _ = run_from(cls, words, prog)
        return cls(run=run)

    def __call__(self) -> None:
        from filmstrip.commands.work.bench import bench_system

        bench_system(self.run)
