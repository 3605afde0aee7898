"""``filmstrip push``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from filmstrip.commands.command import Command

Exported = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FOLDER")]
Repository = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]


@dataclass(frozen=True, kw_only=True)
class Push(Command):
    """Upload a model to the Hugging Face Hub, where transformers' `from_pretrained` and hf:OWNER/NAME read it.

    A run is exported first, as by `filmstrip export RUN --format transformers`; a folder that export wrote is
    uploaded as it is. Needs a token with write access: `hf auth login`, or the variable HF_TOKEN.
    """

    usage = "RUN|FOLDER OWNER/NAME [options]"
    source: Exported
    """Run folder, or a folder that `filmstrip export` wrote."""
    repository: Repository
    """Repository on the Hub; created if it does not exist."""
    private: bool = False
    """Whether a repository that is created is private."""
    message: str | None = None
    """Message of the commit."""
    layout: str | None = None
    """Model of transformers, where that has several of a method, as of export."""

    def __call__(self) -> None:
        from filmstrip.commands.work.push import push

        push(self.source, self.repository, private=self.private, message=self.message, layout=self.layout)
