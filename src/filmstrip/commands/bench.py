"""``filmstrip bench``."""

from __future__ import annotations

from dataclasses import dataclass

from filmstrip.commands.arguments import PresetCommand


@dataclass(frozen=True, kw_only=True)
class Bench(PresetCommand):
    """Measure a preset on this machine: data loading, step time, memory, and the share of the machine's peak rate."""

    usage = "SYSTEM[:PRESET] [--data PATH] [options of the run]"

    def __call__(self) -> None:
        from filmstrip.commands.work.bench import bench_system

        bench_system(self.run)
