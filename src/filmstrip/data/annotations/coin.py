"""COIN (Tang et al. 2019): 778 steps of 180 tasks, in 11,827 videos of which public splits keep what was online.

Its own ``COIN.json`` holds all videos with their subset; PDPP's ``coin_train_70.json`` and ``coin_test_30.json`` and
SCHEMA's ``coin_train.json`` and ``coin_valid.json`` hold lists of the same entries. ``taxonomy.xlsx`` has the names.
Steps are numbered as SCHEMA and PDPP do, by the taxonomy's action id less one.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from filmstrip.data.annotations.files import find, read_json
from filmstrip.data.procedures.types import Annotations, Procedure, Step, in_order, numbered
from filmstrip.errors import UserError

NUM_STEPS, NUM_TASKS = 778, 180
FILES = {
    "pdpp": {
        "train": ("coin_train_70.json", "pdpp_coin_train_70.json"),
        "test": ("coin_test_30.json", "pdpp_coin_test_30.json"),
    },
    "schema": {
        "train": ("coin_train.json", "schema_coin_train.json"),
        "test": ("coin_valid.json", "schema_coin_valid.json"),
    },
}
SUBSETS = {"training": "train", "testing": "test"}
SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_coin(root: Path, division: str = "pdpp") -> Annotations:
    """COIN's annotations in ``root``, divided as its release (``COIN.json``), PDPP or SCHEMA do.

    Raises:
        UserError: a file is missing or invalid.
    """
    steps, tasks = read_taxonomy(find(root, "taxonomy.xlsx"))
    procedures = []
    for path, split, video, entry in _entries(root, division):
        try:
            done = [Step(int(a["id"]) - 1, *map(float, a["segment"])) for a in entry["annotation"]]
            task = int(entry["recipe_type"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: {video} is not annotated as in COIN ({error!r})") from None
        if not (all(0 <= step.step < len(steps) for step in done) and 0 <= task < len(tasks)):
            raise UserError(f"{path}: {video} has a step or task that the taxonomy does not list")
        procedures.append(Procedure(video=video, split=split, task=task, steps=in_order(done)))
    return Annotations(root=root, steps=steps, tasks=tasks, procedures=tuple(procedures))


def _entries(root: Path, division: str) -> Iterator[tuple[Path, str, str, dict[str, Any]]]:
    if division == "release":
        path = find(root, "COIN.json")
        for video, entry in read_json(path)["database"].items():
            yield path, SUBSETS.get(entry["subset"], entry["subset"]), video, entry
        return
    for split, names in FILES[division].items():
        path = find(root, *names)
        for entries in read_json(path):
            for video, entry in entries.items():
                yield path, split, video, entry


def read_taxonomy(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of steps and tasks, in the order of their ids, from ``taxonomy.xlsx``.

    Raises:
        UserError: the file is not such a workbook.
    """
    steps, tasks = [""] * NUM_STEPS, [""] * NUM_TASKS
    try:
        for task, task_name, step, step_name in _rows(path):
            tasks[int(task)] = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", task_name)
            steps[int(step) - 1] = step_name
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise UserError(f"{path} is not COIN's taxonomy: {error}") from None
    if not (all(steps) and all(tasks)):
        raise UserError(f"{path} does not name all {NUM_STEPS} steps and {NUM_TASKS} tasks of COIN")
    return numbered(steps), numbered(tasks)


def _rows(path: Path) -> Iterator[list[str]]:
    """The cells of the sheet that maps tasks to steps, without its header."""
    with zipfile.ZipFile(path) as book:
        shared = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        texts = ["".join(text.text or "" for text in item.iter(f"{SHEET}t")) for item in shared]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet2.xml"))
    for row in list(sheet.iter(f"{SHEET}row"))[1:]:
        cells = []
        for cell in row.iter(f"{SHEET}c"):
            value = cell.findtext(f"{SHEET}v") or ""
            cells.append(texts[int(value)] if cell.get("t") == "s" else value)
        if any(cells):
            yield [cell.strip() for cell in cells[:4]]
