"""``filmstrip decode``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count
from filmstrip.commands.command import Command, RunFolder


@dataclass(frozen=True, kw_only=True)
class Decode(Command):
    """Decode tokens to videos; clips that exist already are skipped."""

    usage = "RUN TOKENS --out FOLDER [options]"
    run: RunFolder
    """Run folder of the tokenizer that encoded the tokens."""
    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Folder written by `filmstrip encode --level ids` (or latents)."""
    out: Path
    """Output folder of the videos."""
    batch_size: Count = 8
    """Number of clips decoded at once."""

    def __call__(self) -> None:
        from filmstrip.commands.work.decode import decode_files

        count = decode_files(self.run, self.tokens, self.out, batch_size=self.batch_size)
        print(f"{self.out}: {count} clips")
