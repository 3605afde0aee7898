"""Folders that the studio may show, and names in requests as paths in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filmstrip.errors import UserError
from filmstrip.runs.contents import CONFIG, METRICS, is_run

OWN = ".studio"
"""Folder within the folder of runs for what the studio keeps: uploads, results, converted films, logs."""
DEPTH = 4
"""Maximum depth at which runs are found below the folder of runs."""


class Missing(UserError):
    """What a request names does not exist, or may not be shown; answered with status 404."""


def inside(root: Path, name: str) -> Path:
    """The existing file or folder that a request names, below ``root`` after all links are followed.

    Raises:
        Missing: there is none, it lies elsewhere, or a part of it is hidden.
    """
    parts = Path(name).parts if name and "\0" not in name else ()
    if parts and not any(part.startswith(".") for part in parts):
        path = Path(os.path.realpath(root / name))
        if path.is_relative_to(os.path.realpath(root)) and path.exists():
            return path
    raise Missing(f"there is no {name!r} here: go back to the list, it may have been renamed or removed")


@dataclass(frozen=True)
class Places:
    """The folder of runs, and the folder of videos to label, if any; both are resolved."""

    runs: Path
    videos: Path | None = None

    @property
    def own(self) -> Path:
        """The folder for what the studio keeps."""
        return self.runs / OWN

    def names(self) -> list[str]:
        """The names of all runs: their paths below the folder of runs, the last changed first."""
        found = {path.relative_to(self.runs).as_posix(): _changed(path) for path in self._runs(self.runs, DEPTH)}
        return sorted(found, key=lambda name: (-found[name], name))

    def run(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            Missing: there is no such run below the folder of runs.
        """
        path = inside(self.runs, name)
        if not _is_run(path):
            raise Missing(f"{name!r} is not a run: go back to the list of runs")
        return self.runs / name

    def _runs(self, folder: Path, depth: int) -> Iterator[Path]:
        try:
            below = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
        except OSError:
            return
        for path in map(Path, below):
            if not Path(os.path.realpath(path)).is_relative_to(self.runs):
                continue
            if _is_run(path):
                yield path
            elif depth > 1 and not path.is_symlink():
                yield from self._runs(path, depth - 1)


def _is_run(path: Path) -> bool:
    """Whether a folder is that of a run; one whose configuration is damaged is, if it has metrics."""
    try:
        return is_run(path)
    except (UserError, OSError):
        return (path / METRICS).exists()


def _changed(path: Path) -> float:
    times = [file.stat().st_mtime for file in (path / METRICS, path / CONFIG) if file.exists()]
    return max(times, default=0.0)
