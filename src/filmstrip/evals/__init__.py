"""Evaluation protocols, one file each. A protocol streams named values."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.runs.evaluation import Evaluation


def protocols() -> dict[str, type[Evaluation]]:
    """Every protocol by the name of its file, which is its name on the command line."""
    from filmstrip.runs.evaluation import Evaluation

    found = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Evaluation) and cls.__module__ == module.__name__:
                found[file.name] = cls
    return found


def summaries() -> dict[str, str]:
    """The first line of what each protocol says of itself, by the protocol's name. Nothing is imported: protocols are
    found in the syntax of their files, as subclasses of ``Evaluation``."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_bytes(), filename=str(path)).body:
            if isinstance(node, ast.ClassDef) and any(getattr(b, "id", None) == "Evaluation" for b in node.bases):
                found[path.stem] = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
    return found


def named_protocols() -> str:
    """The list of all protocols, as the end of an error message."""
    return f"there are {', '.join(protocols())}"


def protocol(name: str) -> type[Evaluation]:
    """The protocol with this name.

    Raises:
        UserError: unknown name; the message suggests the nearest, or lists all.
    """
    known = protocols()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else named_protocols()
        raise UserError(f"there is no evaluation protocol {name!r}; {hint}")
    return known[name]
