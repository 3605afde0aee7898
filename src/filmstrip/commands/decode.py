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
    """Write tokens as videos again; clips that are there already are left alone."""

    usage = "RUN TOKENS --out FOLDER [options]"
    run: RunFolder
    """The run folder of the tokenizer that made the tokens."""
    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """What `filmstrip encode --level ids` (or latents) wrote."""
    out: Path
    """Where the videos go."""
    batch_size: Count = 8
    """Clips decoded at once."""

    def __call__(self) -> None:
        from filmstrip.commands.work.decode import decode_files

        count = decode_files(self.run, self.tokens, self.out, batch_size=self.batch_size)
        print(f"{self.out}: {count} clips")
