"""Evaluation protocols, one file each. A protocol streams named values."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from filmstrip.errors import UserError

if TYPE_CHECKING:
    import torch

    from filmstrip.data.config import Data
    from filmstrip.data.sources import Source
    from filmstrip.protocols import Objective


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What an evaluation looks at: a trained objective, and the data it was trained for."""

    objective: Objective
    source: Source
    data: Data
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A protocol and its settings."""

    requires: ClassVar[frozenset[str]] = frozenset({"video"})
    """What batches must hold of a clip; encoded videos come without ``video``."""

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``(name, value)`` as they become known."""
        raise TypeError(f"{type(self).__name__} does not define __call__(subject)")


def protocols() -> dict[str, type[Evaluation]]:
    """Every protocol by the name of its file, which is how the command line knows it."""
    found = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Evaluation) and cls.__module__ == module.__name__:
                found[file.name] = cls
    return found


def protocol(name: str) -> type[Evaluation]:
    """The protocol of a name.

    Raises:
        UserError: there is none; names the nearest, or all.
    """
    known = protocols()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise UserError(f"there is no evaluation protocol {name!r}; {hint}")
    return known[name]
