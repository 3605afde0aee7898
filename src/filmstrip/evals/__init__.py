"""Evaluation protocols, one file each. A protocol streams named values."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from filmstrip.bounds import check_numbers
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
    compares_classes: ClassVar[bool] = False
    """Whether it tells classes apart: videos need labels then, of two classes or more."""
    learns: ClassVar[bool] = False
    """Whether it looks at the training split too."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``(name, value)`` as they become known."""
        raise TypeError(f"{type(self).__name__} does not define __call__(subject)")

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """The splits that it looks at."""
        own = getattr(self, "split", None) or data.eval_split
        return (data.train_split, own) if self.learns else (own,)

    def lacking(self, source: Source, data: Data) -> str | None:
        """What the data do not have and this protocol looks at, as a sentence; none where nothing is missing.

        Raises:
            UserError: there is no such split.
        """
        name = type(self).__name__
        if missing := self.requires - source.gives:
            return f"{name} looks at {', '.join(sorted(missing))}, which {source.root} does not hold"
        for split in self.splits_of(data):
            labels = [sample.label for sample in source.split(split)]
            if self.compares_classes and all(label is None for label in labels):
                return f"{name} looks at labels, and no video of the split {split!r} of {source.root} has one"
        if self.compares_classes and len(source.classes) < 2:
            return f"{name} tells classes apart, and {source.root} has one: {', '.join(source.classes)}"
        return None

    def check(self, subject: Subject) -> None:
        """See, before hours are spent, that the objective is of the kind that this protocol looks at, and the rest.

        Raises:
            UserError: it is not; says what would be.
        """


def protocols() -> dict[str, type[Evaluation]]:
    """Every protocol by the name of its file, which is how the command line knows it."""
    found = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Evaluation) and cls.__module__ == module.__name__:
                found[file.name] = cls
    return found


def named_protocols() -> str:
    """All protocols, to end a sentence."""
    return f"there are {', '.join(protocols())}"


def protocol(name: str) -> type[Evaluation]:
    """The protocol of a name.

    Raises:
        UserError: there is none; names the nearest, or all.
    """
    known = protocols()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else named_protocols()
        raise UserError(f"there is no evaluation protocol {name!r}; {hint}")
    return known[name]
