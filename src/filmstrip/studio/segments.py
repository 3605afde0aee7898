"""Labelled segments of films, kept in a manifest that training reads: a row for each, written at once."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filmstrip.data.layouts.folder import find_videos
from filmstrip.errors import UserError
from filmstrip.files import write_csv

FILE = "segments.csv"
"""Manifest in the folder of videos."""
COLUMNS = ("path", "start", "end", "label")
MAX_SEGMENTS = 10_000
"""Maximum number of segments of one film."""
LONGEST = 200
"""Maximum length of a label."""

Row = dict[str, str]


class Changed(UserError):
    """The segments of a film were changed by another page meanwhile."""


@dataclass(frozen=True)
class Segments:
    """The segments of the films in a folder; other columns of the manifest, and other films' rows, are kept."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @property
    def path(self) -> Path:
        """The manifest; it appears with the first segment."""
        return self.folder / FILE

    def videos(self) -> list[str]:
        """The films in the folder, as paths below it; links that lead elsewhere are left out."""
        root = os.path.realpath(self.folder)
        found = (Path(path) for path, _ in find_videos(self.folder))
        return [path.relative_to(self.folder).as_posix() for path in found if path.resolve().is_relative_to(root)]

    def rows(self) -> list[Row]:
        """All rows of the manifest, in its order.

        Raises:
            UserError: it is not a table with the columns path, start, end and label.
        """
        if not self.path.exists():
            return []
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                rows = [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
                columns = list(reader.fieldnames or ())
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.path} is not a CSV file in UTF-8: {error}") from None
        if not set(COLUMNS) <= set(columns):
            raise UserError(
                f"{self.path} has the columns {', '.join(columns) or 'of nothing'}, and labelling needs "
                f"{', '.join(COLUMNS)}: rename the file, and a new one is begun"
            )
        return rows

    def of(self, video: str) -> list[Row]:
        """The rows of one film."""
        return [row for row in self.rows() if row["path"] == video]

    def counts(self) -> Counter[str]:
        """Number of segments of each class."""
        return Counter(row["label"] for row in self.rows() if row["label"])

    def save(self, video: str, given: Sequence[Mapping[str, Any]], seen: str) -> str:
        """Replace the rows of one film, and return their :func:`version`.

        A row keeps its other columns if its start, end or label stay, in the order of the given segments.

        Args:
            video: its path below the folder.
            given: its segments with ``start``, ``end`` (seconds) and ``label``.
            seen: the version of the rows that these replace.

        Raises:
            Changed: the rows are not of this version any more.
            UserError: a segment is not valid.
        """
        segments = checked(given)
        with self._lock:
            rows = self.rows()
            own = [row for row in rows if row["path"] == video]
            if version(own) != seen:
                raise Changed(
                    f"the segments of {video} were changed elsewhere meanwhile: reload the page to see them, "
                    "and make your last change again"
                )
            if segments == [_bare(row) for row in own]:
                return seen
            new = [{"path": video, **segment, **_others(segment, own)} for segment in segments]
            place = next((i for i, row in enumerate(rows) if row["path"] == video), len(rows))
            kept = [row for row in rows if row["path"] != video]
            whole = [*kept[:place], *new, *kept[place:]]
            write_csv(whole, self.path, list(dict.fromkeys([*COLUMNS, *(key for row in whole for key in row)])))
            return version(new)


def version(rows: Sequence[Row]) -> str:
    """A text that changes with the segments of a film."""
    told = repr([_bare(row) for row in rows])
    return hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def checked(given: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Segments as cells, by their starts.

    Raises:
        UserError: a segment is not valid.
    """
    if not isinstance(given, list) or len(given) > MAX_SEGMENTS or not all(isinstance(each, dict) for each in given):
        raise UserError(f"expected a list of at most {MAX_SEGMENTS} segments")
    found: list[tuple[float, Row]] = []
    for number, segment in enumerate(given, 1):
        try:
            start, end = float(segment["start"]), float(segment["end"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"segment {number} needs a start and an end in seconds") from None
        if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end) or f"{start:.3f}" == f"{end:.3f}":
            raise UserError(f"segment {number} is from {start:g} to {end:g} s: expected 0 <= start < end")
        label = " ".join(str(segment.get("label", "")).split())
        if not label or label.lower() == "nan" or len(label) > LONGEST:
            raise UserError(
                f"segment {number} has the label {label[:40]!r}: expected 1 to {LONGEST} characters, not nan"
            )
        found.append((start, {"start": f"{start:.3f}", "end": f"{end:.3f}", "label": label}))
    return [segment for _, segment in sorted(found, key=lambda each: each[0])]


def _bare(row: Row) -> Row:
    return {key: row[key] for key in COLUMNS[1:]}


def _others(segment: Row, rows: Sequence[Row]) -> Row:
    """The other columns of the row that this segment was, if any: the same times, or start or end alone."""
    for same in (("start", "end"), ("start",), ("end",)):
        for row in rows:
            if all(row[key] == segment[key] for key in same):
                return {key: value for key, value in row.items() if key not in COLUMNS}
    return {}
