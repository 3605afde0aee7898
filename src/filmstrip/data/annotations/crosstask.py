"""CrossTask (Zhukov et al. 2019): 133 steps of 18 primary tasks, in 2,750 videos.

``tasks_primary.txt`` names the steps, ``annotations/TASK_VIDEO.csv`` says when each is done. The release tests on
``videos_val.csv``; PDPP divides by ``train_list.json`` and ``test_list.json``, SCHEMA by
``cross_task_data_{False,True}.json``. Where SCHEMA's ``crosstask_idices.json`` is there, steps and tasks are numbered
by it, so that its text features fit; otherwise by ``tasks_primary.txt``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from filmstrip.data.annotations.files import find, maybe, read_json, tables
from filmstrip.data.procedures.types import Annotations, Procedure, Step, in_order
from filmstrip.errors import UserError

Key = tuple[str, str]
"""A task's number and a video's id."""


def read_crosstask(root: Path, division: str = "pdpp", shared_steps: bool = False) -> Annotations:
    """CrossTask's annotations in ``root``, divided as its release, PDPP or SCHEMA do.

    ``shared_steps``: steps of one name are one step, whatever the task: 105 instead of 133, as in PDPP.

    Raises:
        UserError: a file is missing or invalid.
    """
    named = read_tasks(find(root, "tasks_primary.txt"))
    tasks, steps = _numbering(root, named, shared_steps)
    splits = _splits(root, division)
    procedures = []
    for name, rows in tables(root, "annotations"):
        task, _, video = name.partition("_")
        split = splits.get((task, video))
        if split is None:
            continue
        task_name, own = named[task]
        try:
            done = [
                Step(steps[_key(task_name, own[int(row[0]) - 1], shared_steps)], *map(float, row[1:3]))
                for row in rows
            ]
        except (IndexError, ValueError, TypeError) as error:
            raise UserError(f"annotations/{name}.csv is not annotated as in CrossTask: {error}") from None
        procedures.append(Procedure(video=video, split=split, task=tasks[task_name], steps=in_order(done)))
    if not procedures:
        raise UserError(f"{root} annotates none of the videos that the division {division!r} lists")
    return Annotations(root=root, steps=tuple(steps), tasks=tuple(tasks), procedures=tuple(procedures))


def read_tasks(path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Each task's name and its steps by the task's number, from ``tasks_primary.txt``.

    Raises:
        UserError: the file is not such a list.
    """
    tasks = {}
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        lines = [line.strip() for line in block.splitlines()]
        if len(lines) != 5:
            raise UserError(f"{path}: expected five lines for a task (number, name, page, count, steps), got {lines}")
        tasks[lines[0]] = lines[1], tuple(step.strip() for step in lines[4].split(","))
    return tasks


def _key(task: str, step: str, shared: bool) -> str:
    return step if shared else f"{task}: {step}"


def _numbering(
    root: Path, named: Mapping[str, tuple[str, tuple[str, ...]]], shared: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """The positions of tasks and of steps, by name and in order."""
    tasks = [name for name, _ in named.values()]
    steps = [_key(name, step, shared) for name, own in named.values() for step in own]
    path = maybe(root, "crosstask_idices.json", "schema_crosstask_idices.json")
    if path is not None:
        indices = read_json(path)
        tasks = sorted(indices["task_idx"], key=indices["task_idx"].get)
        by_name = indices["rd_action_idx" if shared else "action_idx"]
        steps = sorted(by_name, key=by_name.get)
        if not shared:
            steps = [_key(task, step, shared) for task, step in (name.split("_", 1) for name in steps)]
    return _positions(tasks), _positions(steps)


def _positions(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def _splits(root: Path, division: str) -> dict[Key, str]:
    """The split of each video."""
    if division == "release":
        split = {key: "train" for key in _video_table(find(root, "videos.csv"))}
        return split | {key: "test" for key in _video_table(find(root, "videos_val.csv"))}
    if division == "pdpp":
        lists = {
            "train": read_json(find(root, "train_list.json", "pdpp_train_list.json")),
            "test": read_json(find(root, "test_list.json", "pdpp_test_list.json")),
        }
    else:
        lists = {
            split: [
                entry["id"]
                for entry in read_json(
                    find(root, f"cross_task_data_{held}.json", f"schema_cross_task_data_{held}.json")
                )
            ]
            for split, held in (("train", False), ("test", True))
        }
    return {(entry["task"], entry["vid"]): split for split, entries in lists.items() for entry in entries}


def _video_table(path: Path) -> list[Key]:
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").split()]
    return [(row[0], row[1]) for row in rows if len(row) > 1]
