"""Charades-STA (Gao et al. 2017): sentences about half-minute videos of daily activities, one moment each.

``charades_sta_train.txt`` and ``charades_sta_test.txt`` have lines ``VIDEO START END##sentence``. The durations are
in Charades' own ``Charades_v1_train.csv`` and ``Charades_v1_test.csv``, if they are there.
"""

from __future__ import annotations

import csv
from pathlib import Path

from filmstrip.data.annotations.files import find, maybe
from filmstrip.data.moments.types import Queries, Query, proper
from filmstrip.errors import UserError

SPLITS = ("train", "test")


def read_charades_sta(root: Path) -> Queries:
    """The queries in a folder.

    Raises:
        UserError: a file is missing or invalid.
    """
    durations = {
        name: seconds
        for split in SPLITS
        if (path := maybe(root, f"Charades_v1_{split}.csv"))
        for name, seconds in _durations(path).items()
    }
    queries = [
        query for split in SPLITS for query in _queries(find(root, f"charades_sta_{split}.txt"), split, durations)
    ]
    return Queries(root=root, queries=tuple(queries))


def _queries(path: Path, split: str, durations: dict[str, float]) -> list[Query]:
    found = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            when, _, sentence = line.partition("##")
            video, start, end = when.split()
            seconds = durations.get(video)
            moments = proper([(float(start), float(end))], seconds)
            if moments and sentence:
                name = f"{split}_{number:05d}"
                found.append(
                    Query(name=name, video=video, text=sentence, split=split, moments=moments, seconds=seconds)
                )
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not made of lines VIDEO START END##sentence: {error}") from None
    return found


def _durations(path: Path) -> dict[str, float]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["id"]: float(row["length"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not Charades' table of videos with their lengths: {error!r}") from None
