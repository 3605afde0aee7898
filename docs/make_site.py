"""Writes the API reference, a static site made of the docstrings of what users import: build/site/index.html.

python docs/make_site.py               # into build/site
python docs/make_site.py FOLDER

A warning of the generator, a public name without a docstring, and a reference to something that does not exist are
errors: they are listed, and nothing is written.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pdoc
from pdoc import doc

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    "filmstrip",
    "filmstrip.protocols",
    "filmstrip.errors",
    "filmstrip.runs.encoders",
    "filmstrip.runs.classifiers",
    "filmstrip.runs.config",
    "filmstrip.runs.experiment",
    "filmstrip.runs.loading",
    "filmstrip.data.config",
    "filmstrip.data.features",
    "filmstrip.train.config",
    "filmstrip.train.lengths",
    "filmstrip.train.optim",
    "filmstrip.train.schedules",
    "filmstrip.evals.multi_view",
    "filmstrip.evals.knn",
    "filmstrip.evals.linear_probe",
    "filmstrip.evals.attentive_probe",
    "filmstrip.objectives.config",
    "filmstrip.objectives.classification",
    "filmstrip.video.decode",
)
"""Modules that users import from: to use a trained model, to describe a run, and to add a method."""
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`~?\.?([\w.]+)`")

OF_MADE_CONSTRUCTORS = r"Error parsing type annotation .* for [\w.]+\.__init__\."
"""The generator cannot read the constructor that Python makes of a named tuple, or of a dataclass whose bases have
names from other modules; fields are shown all the same."""


def members(found: doc.Namespace) -> Iterator[doc.Doc]:
    """Every public name of a module or a class that is defined there."""
    for member in found.own_members:
        if member.name.startswith("_"):
            continue
        yield member
        if isinstance(member, doc.Class):
            yield from members(member)


def faults(module: doc.Module) -> Iterator[str]:
    """Public names without a docstring, and references that lead nowhere."""
    for member in (module, *members(module)):
        if not member.docstring and not is_evident(member):
            yield f"{member.fullname} has no docstring"
        for target in ROLE.findall(member.docstring):
            if not exists(target, member):
                yield f"{member.fullname} refers to {target}, which does not exist"


def is_evident(member: doc.Doc) -> bool:
    """Whether nothing is missing: what overrides a documented method says the same, and other names are imported."""
    if isinstance(member, doc.Variable):
        return not member.annotation_str  # a constant of a class that its base describes
    return False


def exists(target: str, member: doc.Doc) -> bool:
    """Whether a reference can be followed: from the module or class in which it stands, or by its full name."""
    places = [member.modulename, *(f"{member.modulename}.{name}" for name in class_names(member))]
    return any(resolves(f"{place}.{target}") for place in places) or resolves(target)


def class_names(member: doc.Doc) -> list[str]:
    """The classes that a name stands in, or is."""
    parts = member.qualname.split(".") if member.qualname else []
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def resolves(path: str) -> bool:
    """Whether a dotted name is a module, or something in one; fields of dataclasses count."""
    parts = path.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for name in parts[i:]:
            if hasattr(found, name):
                found = getattr(found, name)
            elif inspect.isclass(found) and any(
                name in vars(base).get("__annotations__", {}) for base in found.__mro__
            ):
                found = None
            else:
                return False
        return True
    return False


def make(folder: Path) -> list[str]:
    """Write the site, and return what is wrong: then nothing is written."""
    import filmstrip

    for name in filmstrip.__all__:
        getattr(filmstrip, name)  # which are imported when they are first used
    pdoc.render.configure(docformat="google", footer_text=f"filmstrip {filmstrip.__version__}", search=True)
    with warnings.catch_warnings(record=True) as warned, tempfile.TemporaryDirectory() as new:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", OF_MADE_CONSTRUCTORS)
        found = [fault for name in MODULES for fault in faults(doc.Module.from_name(name))]
        pdoc.pdoc(*MODULES, output_directory=Path(new))
        found += [str(warning.message) for warning in warned]
        if not found:
            shutil.copytree(new, folder, dirs_exist_ok=True)
    return found


def main() -> int:
    """Write the site, or print what is wrong."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/site"
    if found := make(folder):
        print("\n".join(found), file=sys.stderr)
        return 1
    print(folder / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
