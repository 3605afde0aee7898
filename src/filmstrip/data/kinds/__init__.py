"""The kinds of samples, one file each: configuration, source, batch specification, example, a run's record of it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil

from filmstrip.data.kinds.kind import Kind
from filmstrip.errors import UserError


def known() -> dict[str, type[Kind]]:
    """The configuration of every kind of sample, by the name of its file: ``clips``, ``procedures``."""
    found = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Kind) and cls is not Kind and cls.__module__ == module.__name__:
                found[file.name] = cls
    return found


def named(name: str) -> type[Kind]:
    """The configuration class of one of the :func:`known` kinds.

    Raises:
        UserError: the kind does not exist; the message suggests the nearest name, or lists all.
    """
    found = known()
    if name not in found:
        close = difflib.get_close_matches(name, found, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(found)}"
        raise UserError(f"there is no kind of sample {name!r} to read (--data.reads); {hint}")
    return found[name]
