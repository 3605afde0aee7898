"""Dependencies point one way, read off the import statements."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import filmstrip

ROOT = Path(filmstrip.__file__).parent
LEAVES = {"bounds", "errors", "files", "protocols", "randomness", "settings"}

# Every room (a folder or a module of the package), and what it may import beside itself, imports inside functions
# included. Lower rooms come first: none may import one that stands below it in this table.
ALLOWED = {
    "errors": set(),
    "bounds": {"errors"},
    "files": {"errors"},
    "protocols": {"errors"},
    "randomness": {"errors"},
    "settings": {"errors"},
    "inference": {"errors", "protocols"},
    "distributed": LEAVES,
    "progress": {"distributed"},
    "video": {"errors", "files"},
    "text": {"bounds", "errors", "files"},
    "data": LEAVES | {"progress", "text", "video"},
    "measure": LEAVES | {"data"},
    "train": LEAVES | {"inference", "distributed", "progress", "data", "measure"},
    "nn": LEAVES,
    "weights": LEAVES | {"nn"},
    "models": LEAVES | {"nn", "weights"},
    "objectives": LEAVES | {"inference", "text", "video", "data", "nn", "weights", "models"},
    "runs": LEAVES
    | {"inference", "distributed", "progress", "text", "video", "data", "measure", "train"}
    | {"models", "weights", "objectives"},
    "rl": LEAVES | {"inference", "progress", "video", "data", "train", "nn", "runs"},
    "evals": LEAVES
    | {"inference", "distributed", "progress", "text", "video", "data", "measure", "nn", "models", "weights"}
    | {"objectives", "runs", "rl"},
    "__init__": {"video", "runs"},
    "report": LEAVES | {"data", "runs", "evals"},
    "systems": LEAVES
    | {"inference", "text", "video", "data", "train", "nn", "models", "weights", "objectives", "runs", "rl", "evals"},
    # What its pages ask of a run is done by commands in processes of their own.
    "studio": {"errors", "files", "protocols", "video", "data", "runs", "report", "systems"},
    "commands": LEAVES
    | {"inference", "distributed", "progress", "text", "video", "data", "measure", "train", "nn", "weights"}
    | {"objectives", "runs", "rl", "evals", "report", "systems", "studio"},
    "__main__": {"errors", "commands"},
}


@cache
def imports(path):
    """The modules of ``filmstrip`` that a file imports, anywhere in it, by full name."""
    return list(_imports(path))


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1:] for name in names if name.split(".")[0] == "filmstrip")


def room(path):
    """The room of a file of the package."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported_rooms(path):
    """The rooms that a file imports beside its own. The version is the package's own name and no room."""
    names = [name for name in imports(path) if name not in ([], ["__version__"])]
    return {name[0] if name[0] in ALLOWED else "__init__" for name in names} - {room(path)}


def test_every_room_is_in_the_table():
    found = {room(path) for path in ROOT.rglob("*.py")}
    assert found == set(ALLOWED)


def test_the_table_has_no_cycle():
    order = list(ALLOWED)
    for name, allowed in ALLOWED.items():
        assert allowed - {name} <= set(order[: order.index(name)]), name


@pytest.mark.parametrize("name", ALLOWED)
def test_rooms_import_only_what_lies_below(name):
    files = [path for path in ROOT.rglob("*.py") if room(path) == name]
    assert files
    for path in files:
        assert imported_rooms(path) <= ALLOWED[name], path


def test_rooms_do_not_import_one_another_in_a_circle():
    below = {}
    for path in ROOT.rglob("*.py"):
        below.setdefault(room(path), set()).update(imported_rooms(path))
    while ends := [name for name, rooms in below.items() if not rooms & below.keys()]:
        for name in ends:
            del below[name]
    assert not below, below


def test_systems_do_not_import_each_other():
    for path in (ROOT / "systems").rglob("*.py"):
        # A system may name another's preset by its address, as a person would; it never sees the code behind it.
        own = list(path.relative_to(ROOT).with_suffix("").parts[:3])  # of a method in a folder: that folder
        seen = [name for name in imports(path) if name[0] == "systems" and name[:2] != ["systems", "find"]]
        assert all(name[:3] == own for name in seen), path


SHARED = ("nn", "models", "objectives")
SERVE_ONE: set[str] = set()
"""Files of shared rooms that fewer than two methods use, until the second one comes."""


@cache
def importers():
    """Which modules import each module of ours, by names without ``filmstrip``; packages' own files are left out."""
    modules = {path.relative_to(ROOT).with_suffix("").parts: path for path in ROOT.rglob("*.py")}
    found = {}
    for module, path in modules.items():
        for name in imports(path):
            for known in (tuple(name), tuple(name[:-1])):
                if known in modules:
                    found.setdefault(known, set()).add(module)
    return found


def users(module):
    """Who uses a shared module in the end: systems, and what other rooms run (protocols of evaluation, commands,
    models of the Hub)."""
    found = set()
    for importer in importers().get(module, ()):
        if importer[0] in SHARED:
            found |= users(importer)
        elif importer[0] == "systems":
            found.add(importer[:3])  # a system of several files is one user
        elif importer[0] in ("evals", "commands", "runs"):
            found.add(importer)
    return found


def test_a_file_of_a_shared_room_has_two_users_or_more():
    files = [path.relative_to(ROOT).with_suffix("").parts for room in SHARED for path in (ROOT / room).glob("*.py")]
    assert len(files) > 50
    lone = {"/".join(module) for module in files if module[1] != "__init__" and len(users(module)) < 2}
    assert lone == SERVE_ONE, "move them into the system that uses them, or take them off the list"


def test_the_loop_asks_no_objective_what_it_is():
    asked = re.findall(r"isinstance\(.*?, *(\w+)\)", (ROOT / "train" / "loop.py").read_text())
    assert set(asked) <= {"Tensor"}
