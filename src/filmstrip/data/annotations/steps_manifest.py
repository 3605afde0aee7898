"""Manifests of the steps of annotated videos, for encoding them and for training encoders on them."""

from __future__ import annotations

from pathlib import Path

from filmstrip.data.layouts.named import by_stem, leave_out_missing
from filmstrip.data.procedures.types import Annotations
from filmstrip.errors import UserError
from filmstrip.files import write_csv


def write_manifest(annotations: Annotations, videos: Path, out: Path) -> int:
    """Write a manifest of all steps whose videos are below ``videos``; returns their number.

    Missing videos are skipped with a warning.

    Raises:
        UserError: all videos are missing.
    """
    files = by_stem(videos)
    found, _ = leave_out_missing(annotations.procedures, lambda p: files.get(_stem(p.video, files)))
    rows = [
        {
            "path": str(file.absolute()),
            "label": annotations.steps[step.step],
            "split": procedure.split,
            "start": step.start,
            "end": step.end,
        }
        for procedure, file in found
        for step in procedure.steps
        if step.end > step.start
    ]
    if not rows:
        first = annotations.procedures[0].video
        raise UserError(f"{videos} holds none of the {len(annotations.procedures)} annotated videos, such as {first}")
    write_csv(rows, out)
    return len(rows)


def _stem(video: str, files: dict[str, Path]) -> str:
    """A video's name as the files have it: ids may hold dots, so an ending is cut off only where that helps."""
    name = Path(video).name.lower()
    return name if name in files else Path(name).stem
