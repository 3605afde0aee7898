"""NIV (Alayrac et al. 2016): 48 steps of 5 tasks, in 150 videos.

``csvs/VIDEO.csv`` says when each step is done, ``niv_action_idx.json`` (SCHEMA's) numbers steps and tasks. The
release has no split; PDPP divides by ``train70.json`` and ``test30.json``, SCHEMA by ``niv_train.json`` and
``niv_valid.json``.
"""

from __future__ import annotations

from pathlib import Path

from filmstrip.data.annotations.files import find, read_json, tables
from filmstrip.data.procedures.types import Annotations, Procedure, Step, in_order, numbered, position
from filmstrip.errors import UserError

FILES = {
    "pdpp": {"train": ("train70.json", "pdpp_train70.json"), "test": ("test30.json", "pdpp_test30.json")},
    "schema": {
        "train": ("niv_train.json", "schema_niv_train.json"),
        "test": ("niv_valid.json", "schema_niv_valid.json"),
    },
}


def read_niv(root: Path, division: str = "pdpp") -> Annotations:
    """NIV's annotations in ``root``, divided as PDPP or SCHEMA do.

    Raises:
        UserError: a file is missing or invalid, or the release's own division is requested.
    """
    if division not in FILES:
        raise UserError("the release of NIV has no split: use the division 'pdpp' or 'schema'")
    numbering = read_json(find(root, "niv_action_idx.json", "schema_niv_action_idx.json"))
    tasks = sorted(numbering, key=lambda name: numbering[name]["task_id"])
    own = [tuple(sorted(numbering[name]["actions"], key=numbering[name]["actions"].get)) for name in tasks]
    first = [min(numbering[name]["actions"].values()) for name in tasks]
    splits, task_of = _splits(root, division)
    procedures = []
    for video, rows in tables(root, "csvs"):
        if video not in splits:
            continue
        task = task_of[video]
        where = f"{video}.csv"
        try:
            done = [
                Step(first[task] + position(row[0].lower(), own[task], where), float(row[1]), float(row[2]))
                for row in rows
            ]
        except (IndexError, ValueError) as error:
            raise UserError(f"{where} is not annotated as in NIV: {error}") from None
        procedures.append(Procedure(video=video, split=splits[video], task=task, steps=in_order(done)))
    if not procedures:
        raise UserError(f"{root} annotates none of the videos that the division {division!r} lists")
    steps = numbered([step for names in own for step in names])
    return Annotations(root=root, steps=steps, tasks=tuple(tasks), procedures=tuple(procedures))


def _splits(root: Path, division: str) -> tuple[dict[str, str], dict[str, int]]:
    """The split and the task of each video."""
    splits, tasks = {}, {}
    for split, names in FILES[division].items():
        entries = read_json(find(root, *names))
        if division == "pdpp":
            entries = {Path(entry["feature"]).stem: entry for entry in entries}
        for video, entry in entries.items():
            splits[video], tasks[video] = split, entry["task_id"]
    return splits, tasks
