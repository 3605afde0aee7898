"""The awkward real files, where they are."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data" / "decoder"


@pytest.fixture(scope="session")
def awkward() -> Callable[[str], Path]:
    """The path of one of the real files by its name in the collection; skips where the collection is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real videos are not at {SHARED}")
    return lambda name: SHARED / name


@pytest.fixture(scope="session")
def manifest() -> dict[str, dict[str, str]]:
    """What a plain reader makes of each real file."""
    if not SHARED.is_dir():
        pytest.skip(f"real videos are not at {SHARED}")
    with open(SHARED / "manifest.csv") as file:
        return {row["path"].removeprefix("decoder/"): row for row in csv.DictReader(file)}
