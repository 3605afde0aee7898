"""Dependencies point one way, read off the import statements."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import filmstrip

ROOT = Path(filmstrip.__file__).parent
PARTS = {"nn", "models", "objectives", "systems"}
LEAVES = {"bounds", "errors", "files", "protocols", "randomness", "settings"}

# Of these parts, the ones that each part may import; parts that are not listed are free.
ALLOWED = {
    "nn": {"nn"},
    "models": {"nn", "models"},
    "objectives": {"nn", "models", "objectives"},
    "systems": {"nn", "models", "objectives"},
    "train": set(),
    "distributed": set(),
    "measure": set(),
    "data": set(),
    "video": set(),
    "evals": {"nn", "models", "objectives"},
    "weights": {"nn"},
}


def imports(path):
    """The modules of ``filmstrip`` that a file imports, anywhere in it, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1:] for name in names if name.split(".")[0] == "filmstrip")


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_lies_below(part):
    files = list((ROOT / part).rglob("*.py"))
    assert files
    for path in files:
        # A system may name another's preset by its address, as a person would; it never sees the code behind it.
        own = list(path.relative_to(ROOT).parts[:3])  # of a method in a folder: that folder
        used = {name[0] for name in imports(path) if name and name != ["systems", "find"] and name[:3] != own} & PARTS
        assert used <= ALLOWED[part] | ({"systems"} if path == ROOT / "systems/__init__.py" else set()), path


def test_video_imports_only_errors_and_how_files_are_written():
    used = {(path.name, name[0]) for path in (ROOT / "video").rglob("*.py") for name in imports(path)}
    assert {name for _, name in used} <= {"video", "errors", "files"}, used


def test_leaves_import_nothing_of_ours_but_errors():
    for leaf in LEAVES:
        assert [name for name in imports(ROOT / f"{leaf}.py") if name[0] != "errors"] == []


def test_networks_are_told_by_arguments_not_by_configurations():
    for part in ("nn", "models"):
        for path in (ROOT / part).rglob("*.py"):
            assert {name[0] for name in imports(path)} <= LEAVES | {"nn", "models", "weights"}, path


SHARED = ("nn", "models", "objectives")
SERVE_ONE = {"models/frozen", "models/frozen_networks"}
"""Files of shared rooms that fewer than two methods use: frozen encoders of the Hub serve `runs` alone."""


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
    """Who uses a shared module in the end: systems, and what other rooms run (protocols of evaluation, commands)."""
    found = set()
    for importer in importers().get(module, ()):
        if importer[0] in SHARED:
            found |= users(importer)
        elif importer[0] == "systems":
            found.add(importer[:3])  # a system of several files is one user
        elif importer[0] in ("evals", "commands"):
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


def test_nothing_but_the_command_line_calls_commands():
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] not in ("commands", "__main__.py"):
            assert "commands" not in {name[0] for name in imports(path) if name}, path
