"""Something-Something V2 (Goyal et al. 2017): numbered webm files, and labels as JSON.

    20bn-something-something-v2/78687.webm
    labels/{labels,train,validation,test}.json    or something-something-v2-labels.json and so on

``labels.json`` numbers templates without brackets; an entry of ``train.json`` has an ``id``, a ``template`` with
brackets around ``[something]``, and a ``label`` that fills them in, which becomes the clip's text. Classes are
directional (pushing *left to right*), so nothing is ever mirrored.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.data.layouts.named import by_stem, leave_out_missing
from filmstrip.data.sample import Sample, Source, collect, number_names, read_notes
from filmstrip.errors import UserError

FOLDERS = (".", "labels", "annotations")
PREFIXES = ("", "something-something-v2-")
SPLITS = {"train": "train", "validation": "val", "test": "test"}


def detect(root: Path) -> bool:
    """Whether both labels and training list are there."""
    return _find(root, "labels.json") is not None and _find(root, "train.json") is not None


def open_ssv2(root: Path) -> Source:
    """The splits ``train``, ``val`` and, where there is ``test.json``, ``test``, labelled if ``test-answers.csv`` is.

    Raises:
        UserError: labels or lists are missing or invalid, or none of the videos exists.
    """
    names = _find(root, "labels.json")
    if names is None or not detect(root):
        raise UserError(
            f"{root} is not laid out as Something-Something V2: expected labels/labels.json, labels/train.json and "
            "files such as 20bn-something-something-v2/78687.webm"
        )
    numbers = _read(names, dict)
    classes = tuple(sorted(numbers, key=lambda name: int(numbers[name])))
    answers = _answers(_find(root, "test-answers.csv"))
    listed = []
    for name, split in SPLITS.items():
        path = _find(root, f"{name}.json")
        for entry in _read(path, list) if path else ():
            if not isinstance(entry, dict) or "id" not in entry:
                raise UserError(f'{path}: every entry should be an object with an "id"')
            template = entry.get("template") or answers.get(str(entry["id"]))
            label = template.replace("[", "").replace("]", "") if template else None
            listed.append((split, str(entry["id"]), label, entry.get("label")))
    videos = by_stem(root)
    found, missing = leave_out_missing(listed, lambda item: videos.get(item[1]))
    if not found:
        raise UserError(f"{root} holds none of the {missing} videos that are listed, such as {listed[0][1]}.webm")
    _, labels = number_names([label for (_, _, label, _), _ in found], classes, root)
    samples = [
        Sample(path=str(file), name=name, label=label, split=split, text=(text,) if text else ())
        for ((split, name, _, text), file), label in zip(found, labels)
    ]
    return collect(root, classes, samples, replace(read_notes(root), directional=True))


def _find(root: Path, name: str) -> Path | None:
    paths = (root / folder / f"{prefix}{name}" for folder in FOLDERS for prefix in PREFIXES)
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path, kind: type) -> Any:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, kind):
        raise UserError(f"{path} should hold a JSON {'object' if kind is dict else 'list'}")
    return values


def _answers(path: Path | None) -> dict[str, str]:
    """The templates of test videos by their number, ``id;template``."""
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row[0]: row[1] for row in csv.reader(file, delimiter=";") if len(row) > 1}
