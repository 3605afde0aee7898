"""The methods, one file each. A preset is a public function without parameters in such a file; it returns a ``Run``.

What there is, is read off the files' syntax; a system is imported when one of its presets is asked for. So the index
needs no torch, and nothing but the file has to be edited for a system to be in it.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.runs.config import Run


def names() -> list[str]:
    """Every system, as ``group.name``."""
    return sorted(
        f"{group.name}.{system.name}"
        for group in pkgutil.iter_modules(__path__)
        for system in pkgutil.iter_modules([str(Path(folder) / group.name) for folder in __path__])
    )


def presets(name: str) -> list[str]:
    """The presets of a system, in the order of its file: its public functions without parameters.

    Raises:
        UserError: there is no such system; names the nearest.
    """
    return list(_presets(name))


def stages(address: str) -> tuple[str, ...]:
    """The stages that ``group.name:ladder`` stands for, each trained from the one before, as addresses of presets;
    none if it is no ladder. Ladders are the ``LADDERS`` in a system's file: presets in order, by the ladder's name.

    Raises:
        UserError: there is no such system; names the nearest.
    """
    name, _, ladder = address.partition(":")
    for tree in _syntax(name).values():
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and target.id == "LADDERS":
                return tuple(f"{name}:{stage}" for stage in ast.literal_eval(node.value).get(ladder, ()))
    return ()


def summary(name: str) -> str:
    """What a system is: the first sentence of its file.

    Raises:
        UserError: there is no such system; names the nearest.
    """
    file = next(iter(_syntax(name).values()))
    text = " ".join((ast.get_docstring(file) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def place(name: str) -> Path:
    """The file of a system, or its folder."""
    stem = next(stem for stem in (Path(folder, *name.split(".")) for folder in __path__) if _exists(stem))
    return stem if stem.is_dir() else stem.with_suffix(".py")


def find(address: str) -> Run:
    """The run that ``group.name:preset`` stands for; ``tiny`` when no preset is named.

    ``package.module:preset`` is a system outside this package: whoever names it allows its package, so that its runs
    can be loaded (:mod:`filmstrip.runs.outside`).

    Raises:
        UserError: the system or the preset does not exist; names the nearest.
    """
    name, _, preset = address.partition(":")
    found = _presets(name)
    preset = preset or "tiny"
    if preset not in found and (of_ladder := stages(address)):
        raise UserError(
            f"{address} is a ladder, which only `filmstrip train` takes: name one of its stages, "
            f"{', '.join(of_ladder)}"
        )
    if preset not in found:
        raise UserError(f"{name} has no preset {preset!r}; {_nearest(preset, list(found))}")
    if not _is_ours(name):
        from filmstrip.runs.outside import allow

        allow(name.partition(".")[0])
    try:
        module = importlib.import_module(found[preset])
    except ImportError as error:
        if _is_ours(name):
            raise
        raise UserError(f"{name} cannot be imported: {error}") from error
    function: Callable[[], Run] = getattr(module, preset)
    return function()


def _exists(stem: Path) -> bool:
    return stem.is_dir() or stem.with_suffix(".py").exists()


def _presets(name: str) -> dict[str, str]:
    """The presets of a system, each with the module that defines it."""
    return {
        node.name: module
        for module, tree in _syntax(name).items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not any(_parameters(node))
    }


def _parameters(function: ast.FunctionDef) -> Iterator[ast.arg]:
    """All parameters of a function."""
    given = function.args
    yield from (*given.posonlyargs, *given.args, *given.kwonlyargs)
    yield from (arg for arg in (given.vararg, given.kwarg) if arg)


@cache
def _syntax(name: str) -> dict[str, ast.Module]:
    """The syntax of a system's file, by its module; of a system that is a folder, of its package and its presets."""
    known = names()
    if name not in known:
        if not _is_ours(name) and (outside := _outside(name)):
            return outside
        raise UserError(f"there is no system {name!r}; {_nearest(name, known)}; `filmstrip list` shows all")
    module = f"{__name__}.{name}"
    stems = [Path(folder, *name.split(".")) for folder in __path__]
    files = [(module, stem.with_suffix(".py")) for stem in stems]
    files += [(module, stem / "__init__.py") for stem in stems]
    files += [(f"{module}.presets", stem / "presets.py") for stem in stems]
    return {owner: ast.parse(path.read_bytes(), filename=str(path)) for owner, path in files if path.exists()}


def _is_ours(name: str) -> bool:
    """Whether a name is one of this package's, or none of a module at all."""
    groups = {known.partition(".")[0] for known in names()}
    return "." not in name or name.partition(".")[0] in groups


def _outside(name: str) -> dict[str, ast.Module]:
    """The syntax of a module outside this package, by its name; empty if there is none."""
    from filmstrip.runs.outside import spec_of

    if not all(part.isidentifier() for part in name.split(".")):
        return {}
    spec = spec_of(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {}
    return {name: ast.parse(Path(spec.origin).read_bytes(), filename=spec.origin)}


def _nearest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
