"""``filmstrip show``."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from filmstrip.commands.arguments import PresetCommand


@dataclass(frozen=True, kw_only=True)
class Show(PresetCommand):
    """Show a preset as it would run: configuration, parameters, GMACs, tokens, memory."""

    usage = "SYSTEM[:PRESET] [options of the run]"

    def __call__(self) -> None:
        from filmstrip.commands.work.show import show

        show(self.run, Console())
