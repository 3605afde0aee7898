"""The methods, a file or a folder each. A preset is a function without arguments that returns a complete ``Run``."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.runs.config import Run


def names() -> list[str]:
    """Every system, as ``group.name``."""
    found = []
    for group in pkgutil.iter_modules(__path__):
        package = importlib.import_module(f"{__name__}.{group.name}")
        found += [f"{group.name}.{m.name}" for m in pkgutil.iter_modules(package.__path__)]
    return sorted(found)


def module(name: str) -> ModuleType:
    """The module of a system named ``group.name``.

    Raises:
        UserError: there is no such system; names the nearest.
    """
    known = names()
    if name not in known:
        raise UserError(f"there is no system {name!r}; {_nearest(name, known)}; `filmstrip list` shows all")
    return importlib.import_module(f"{__name__}.{name}")


def presets(name: str) -> dict[str, Callable[[], Run]]:
    """The presets of a system: its public functions without parameters that promise a ``Run``."""
    found, own = {}, module(name)
    for key, function in vars(own).items():
        # Those of a method in a folder come from a file of that folder.
        here = inspect.isfunction(function) and f"{function.__module__}.".startswith(f"{own.__name__}.")
        if here and not key.startswith("_"):
            signature = inspect.signature(function)
            if not signature.parameters and signature.return_annotation in ("Run", "config.Run"):
                found[key] = function
    return found


def find(address: str) -> Run:
    """The run that ``group.name:preset`` stands for; ``tiny`` when no preset is named.

    Raises:
        UserError: the system or the preset does not exist; names the nearest.
    """
    name, _, preset = address.partition(":")
    known = presets(name)
    preset = preset or "tiny"
    if preset not in known:
        raise UserError(f"{name} has no preset {preset!r}; {_nearest(preset, list(known))}")
    return known[preset]()


def _nearest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
