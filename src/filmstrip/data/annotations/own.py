"""The format of the user's own annotations and of synthetic datasets: ``procedures.json``.

{"steps": ["melt", "stir", ...], "tasks": ["fudge", ...],
 "videos": [{"video": "train/00000.mp4", "split": "train", "task": "fudge",
             "steps": [{"step": "melt", "start": 0.0, "end": 2.0}, ...]}, ...]}

A video may also have its length, ``"seconds"``, and its rate, ``"fps"``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filmstrip.data.annotations.files import read_json
from filmstrip.data.procedures.types import Annotations, Procedure, Step, in_order, position
from filmstrip.errors import UserError
from filmstrip.files import write_json

FILE = "procedures.json"


def read_own(path: Path) -> Annotations:
    """The annotations in a file, or in the ``procedures.json`` of a folder.

    Raises:
        UserError: the file is missing or invalid, or a video has a step or task that is not listed.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} does not exist: annotations of your own are a {FILE} (docs/data.md shows one)")
    values = read_json(path)
    try:
        steps, tasks = tuple(values["steps"]), tuple(values.get("tasks", ()))
        procedures = tuple(
            Procedure(
                video=entry["video"],
                split=entry["split"],
                task=position(entry["task"], tasks, path, "task") if "task" in entry else -1,
                steps=in_order(
                    [
                        Step(position(s["step"], steps, path), float(s["start"]), float(s["end"]))
                        for s in entry["steps"]
                    ]
                ),
                seconds=float(entry["seconds"]) if "seconds" in entry else None,
                fps=float(entry["fps"]) if "fps" in entry else None,
            )
            for entry in values["videos"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not of the form that docs/data.md shows: {error!r}") from None
    for procedure in procedures:
        if wrong := next((step for step in procedure.steps if not 0 <= step.start < step.end), None):
            raise UserError(f"{path}: {procedure.video} has a step from {wrong.start:g} to {wrong.end:g} s")
    return Annotations(root=path.parent, steps=steps, tasks=tasks, procedures=procedures)


def write_own(annotations: Annotations, path: Path) -> None:
    """Write annotations as ``procedures.json``."""
    videos = []
    for procedure in annotations.procedures:
        done = [{"step": annotations.steps[s.step], "start": s.start, "end": s.end} for s in procedure.steps]
        entry: dict[str, Any] = {"video": procedure.video, "split": procedure.split, "steps": done}
        if procedure.task >= 0:
            entry["task"] = annotations.tasks[procedure.task]
        known = {"seconds": procedure.seconds, "fps": procedure.fps}
        entry |= {key: value for key, value in known.items() if value is not None}
        videos.append(entry)
    values = {"steps": list(annotations.steps), "tasks": list(annotations.tasks), "videos": videos}
    write_json(values, path)
