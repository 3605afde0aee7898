"""Code outside the package: systems of other people, which only their user may bring in.

A run folder names the classes of its configuration. Those of other packages are imported only after the user has said
so in this process, or in one that started it: by typing the system (``filmstrip train my_package.my_system``), by
``--allow my_package``, by :func:`allow` in Python, or in the environment variable ``FILMSTRIP_ALLOW`` (names with
commas between them). Nothing in a run folder can.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from filmstrip.errors import UserError

OURS = "filmstrip"
VARIABLE = "FILMSTRIP_ALLOW"


def allow(package: str) -> None:
    """Let run folders name code of a package, which is then imported, here and in processes that this one starts.

    Raises:
        UserError: it is no name of a package, or none is found here or in the current folder.
    """
    if not package.isidentifier():
        raise UserError(
            f"{package!r} is no package: give its first name, such as my_package for my_package.my_system"
        )
    if spec_of(package) is None:
        raise UserError(
            f"there is no package {package!r}, here or in the current folder: install it, or go where it is"
        )
    os.environ[VARIABLE] = ",".join(sorted({*_allowed(), package}))


def is_allowed(module: str) -> bool:
    """Whether code of a module may be imported because a run folder names it."""
    return module.partition(".")[0] in {OURS, *_allowed()}


def spec_of(module: str) -> ModuleSpec | None:
    """Where a module is, also in the current folder, as with ``python -m``; none if it is nowhere. The packages that
    it is in are imported."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that nothing there replaces what is installed
    try:
        return importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None


def import_allowed(module: str) -> ModuleType:
    """A module that a run folder names.

    Raises:
        UserError: it is of a package that the user has not allowed.
        ImportError: it is not there, or imports something that is not.
    """
    package = module.partition(".")[0]
    if not is_allowed(module):
        raise UserError(
            f"it names {module}, which is code outside filmstrip and is not imported unless you say that you trust "
            f"it: --allow {package} (in Python filmstrip.allow({package!r}))"
        )
    if package != OURS:
        spec_of(package)
    return importlib.import_module(module)


def _allowed() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]
