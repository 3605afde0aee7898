"""Where generated data sets live: made once, whole or not at all, by one process while the others wait."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from filmstrip.data.config import Synthetic
from filmstrip.errors import UserError
from filmstrip.files import PART, cache_folder, write_json
from filmstrip.progress import tracked

NOTES = "dataset.json"


def generate_once(
    config: Synthetic,
    *,
    name: str,
    version: int,
    notes: dict[str, Any],
    write: Callable[[Path], None],
    out: Path | None,
) -> Path:
    """The folder of a generated set: the one that is there already, or a new one that ``write`` fills.

    The folder's name holds a hash of the configuration and of the ``version`` of the code that draws. ``write`` works
    in a temporary folder beside it, which is renamed when complete; a link to a folder goes on leading there.

    Raises:
        UserError: ``out`` is not empty and holds something else.
        OSError: it cannot be written; nothing is left of it then.
    """
    made_from = {"name": name, "version": version, "config": _values(config)}
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(out).expanduser().resolve() if out is not None else cache_folder() / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if _is_made_from(folder, made_from):
            return folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} holds something else than this set: give a folder that is new or empty")
        for left in folder.parent.glob(f".{glob.escape(folder.name)}-*{PART}"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        work = folder.with_name(f".{folder.name}-{os.getpid()}{PART}")
        work.mkdir()
        try:
            write(work)
            write_json({**notes, "generated": made_from}, work / NOTES)
            work.replace(folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return folder


def write_videos(write: Callable[..., None], jobs: Iterable[Sequence[Any]]) -> None:
    """Call ``write(*job)`` for every job, on all cores: each draws and encodes one video from a seed of its own."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = list(jobs)
        for _ in tracked(pool.map(lambda job: write(*job), jobs), "drawing videos", total=len(jobs)):
            pass


def seeded_paths(folder: Path, counts: dict[str, int], seed: int) -> list[tuple[Path, tuple[int, int, int]]]:
    """Make a folder for each split, and list its videos-to-be with their seeds."""
    jobs = []
    for i, (split, count) in enumerate(counts.items()):
        (folder / split).mkdir()
        jobs += [(folder / split / f"{k:05d}.mp4", (seed, i, k)) for k in range(count)]
    return jobs


def _values(config: Synthetic) -> dict[str, Any]:
    """The configuration as JSON gives it back, of which tuples come as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _is_made_from(folder: Path, made_from: dict[str, Any]) -> bool:
    try:
        return json.loads((folder / NOTES).read_text()).get("generated") == made_from
    except (OSError, ValueError, AttributeError):
        return False
