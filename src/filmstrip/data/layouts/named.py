"""What annotations that name files have in common: finding the files, wherever below the folder they lie."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filmstrip.data.layouts.folder import videos_by_name

Item = TypeVar("Item")

log = logging.getLogger(__name__)


def by_stem(root: Path) -> dict[str, Path]:
    """Every video below ``root`` by its name without ending, in small letters."""
    return {name.lower(): path for name, path in videos_by_name(root).items()}


def leave_out_missing(
    items: Iterable[Item], find: Callable[[Item], Path | None]
) -> tuple[list[tuple[Item, Path]], int]:
    """The items whose file is there, with it, and how many are not: public sets are rarely complete."""
    files = [(item, find(item)) for item in items]
    found = [(item, file) for item, file in files if file is not None]
    missing = len(files) - len(found)
    if found and missing:
        log.warning("%d of %d listed videos are missing and are skipped", missing, len(files))
    return found, missing
