"""Runs one command and counts the walls between rooms of the package that its work crosses.

    python tests/crossings.py COUNT.json train recognition.r2plus1d:tiny --train.steps 2 ...

A room is what ``tests/test_layers.py`` calls one: a folder or a module at the root of the package; each system is a
room of its own. There is a wall between two rooms that one of them, or both, crosses when its code runs the other's:
calls it, be it through a library such as torch's modules, or imports it. A wall counts once, whichever way and
however often it is crossed. Only the main thread of the first process is watched: no loader's workers.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import filmstrip

ROOT = f"{Path(filmstrip.__file__).parent}/"


def room_of(filename):
    """The room of a source file; none for others' files."""
    if not filename.startswith(ROOT):
        return None
    parts = filename.removeprefix(ROOT).removesuffix(".py").split("/")
    of_system = parts[0] == "systems" and len(parts) > 2 and parts[2] != "__init__"
    return "/".join(parts[:3]) if of_system else parts[0]


class Crossings:
    """The walls that are crossed while it is a profile function: ``sys.setprofile(Crossings())``."""

    def __init__(self):
        self.walls = set()
        self._rooms = {}

    def __call__(self, frame, event, argument):
        if event != "call" or (room := self._room(frame)) is None:
            return
        caller = frame.f_back
        while caller is not None and self._room(caller) is None:
            caller = caller.f_back
        if caller is not None and (other := self._room(caller)) != room:
            self.walls.add(tuple(sorted((room, other))))

    def _room(self, frame):
        code = frame.f_code
        if code not in self._rooms:
            self._rooms[code] = room_of(code.co_filename)
        return self._rooms[code]


def main(out, *words):
    """Run a command, and write which walls it crossed as JSON."""

    importlib.import_module("torch._dynamo")  # large, and nobody needs to watch it: without it half the time
    from filmstrip.__main__ import main as filmstrip_main

    crossings = Crossings()
    sys.setprofile(crossings)
    try:
        code = filmstrip_main(list(words))
    finally:
        sys.setprofile(None)
    Path(out).write_text(json.dumps(sorted(crossings.walls)))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
