"""Manifests of what labelling tools export: a row for each labelled part of a film, and tables of boxes."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from filmstrip.data.annotations.ava import write_boxes
from filmstrip.data.annotations.cvat import read_cvat
from filmstrip.data.annotations.label_studio import read_label_studio
from filmstrip.data.annotations.labelled import Export, KeyBox, Segment
from filmstrip.data.annotations.via import read_via
from filmstrip.data.detection.types import Actor, Moment
from filmstrip.data.layouts.folder import find_films, find_videos, is_film
from filmstrip.errors import UserError
from filmstrip.files import write_csv
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError

EXPORTS: dict[str, Callable[[Path, str], Export]] = {
    "cvat": lambda path, attribute: read_cvat(path),
    "via": read_via,
    "label_studio": read_label_studio,
}
"""Readers of exports, by the name of the tool."""
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""Prefix that Label Studio gives to the names of files that are uploaded to it."""
SHOWN = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converted:
    """What was written."""

    out: Path
    rows: int
    films: int
    missing: tuple[str, ...]
    """Films that were not found, or cannot be read, with the reason."""
    counts: Counter[str]
    """Number of rows of each label."""
    boxes: int = 0

    def text(self) -> str:
        """The report for people."""
        labels = ", ".join(f"{label} ({count})" for label, count in self.counts.most_common(SHOWN))
        more = f" and {len(self.counts) - SHOWN} more" if len(self.counts) > SHOWN else ""
        lines = [f"{self.out}: {self.rows} parts of {self.films} films: {labels}{more}"]
        if self.boxes:
            lines.append(f"{self.boxes} boxes")
        lines += [f"left out  {missing}" for missing in self.missing]
        return "\n".join([*lines, f"train on it with --data {self.out}"])


def convert_labels(
    tool: str,
    export: Path,
    videos: Path,
    out: Path,
    *,
    fps: float | None = None,
    attribute: str = "",
    boxes: Path | None = None,
) -> Converted:
    """Write a manifest of an export of a labelling ``tool``, and a table of its ``boxes`` in AVA's format.

    ``videos`` is the folder of the films, or the one film. Frames are turned into seconds by the times of the film's
    own frames, or by the ``fps`` of the tool's labelling page where that is another. ``attribute`` names the
    attribute of VIA, or the control of Label Studio's page, that labels. Films that are missing or cannot be read are
    left out.

    Raises:
        UserError: the export cannot be read, no film is found, or there are no boxes.
        OSError: a file cannot be written.
    """
    if tool not in EXPORTS:
        raise UserError(f"there is no labelling tool {tool!r}; there are {', '.join(EXPORTS)}")
    if out.suffix.lower() != ".csv":
        raise UserError(f"a manifest of labels is a table: give --out NAME.csv, not {out}")
    if attribute and tool == "cvat":
        raise UserError("--attribute is for via and label_studio: leave it out")
    found = EXPORTS[tool](export, attribute)
    if boxes is not None and not found.boxes:
        raise UserError(f"{export} has no boxes that are followed: leave out --boxes")
    films = _Films(videos, fps)
    rows = [row for segment in found.segments if (row := films.row(segment, out)) is not None]
    if not rows:
        first = next(iter(films.missing.items()), ("", ""))
        raise UserError(
            f"{videos} holds no film of {export} that can be read: {first[0] or 'a film without a name'}: {first[1]} "
            "(--videos FOLDER, or the film itself)"
        )
    tracked = {} if boxes is None else _boxes_of(found.boxes, films)
    if boxes is not None:
        write_boxes(boxes, tracked)
    rows.sort(key=lambda row: (row["path"], row["start"] or 0.0, row["end"] or 0.0))
    write_csv(rows, out, ["path", "label", "start", "end", "group"])
    return Converted(
        out=out,
        rows=len(rows),
        films=len({row["path"] for row in rows}),
        missing=tuple(f"{name or 'a film without a name'}: {reason}" for name, reason in films.missing.items()),
        counts=Counter(str(row["label"]) for row in rows),
        boxes=sum(map(len, tracked.values())),
    )


class _Films:
    """The films of an export: where they are, and when their frames are shown."""

    def __init__(self, videos: Path, fps: float | None) -> None:
        self.missing: dict[str, str] = {}
        """Films that were not found, or cannot be read, with the reason."""
        self._fps = fps
        self._root = videos.expanduser()
        if not self._root.exists():
            raise UserError(f"{videos} does not exist: provide the folder of the films, or the film (--videos)")
        self._only = self._root if self._root.is_file() or is_film(self._root) else None
        self._by_name = {} if self._only else _by_name(self._root)
        self._places: dict[str, Path | None] = {}
        self._times: dict[Path, np.ndarray | None] = {}
        self._too_short: set[Path] = set()

    def row(self, segment: Segment, out: Path) -> dict[str, str | float | None] | None:
        """The row of a manifest; None where the film is missing."""
        path = self.find(segment.film)
        if path is None:
            return None
        start, end = segment.start, segment.end
        if segment.in_frames and start is not None and end is not None:
            start, end = self.second(segment.film, path, start), self.second(segment.film, path, end)
        if start is not None and (end is None or not start < end):
            return None
        place = os.path.abspath(path)
        below = Path(place).is_relative_to(out.parent.absolute())
        return {
            "path": os.path.relpath(place, out.parent.absolute()) if below else place,
            "label": segment.label,
            "start": None if start is None else round(max(0.0, start), 6),
            "end": None if end is None else round(end, 6),
            "group": path.stem,
        }

    def find(self, name: str) -> Path | None:
        """The film of a name in an export; None, and it is noted, where there is none or it cannot be read."""
        if name not in self._places:
            self._places[name] = self._found(name)
        return self._places[name]

    def _found(self, name: str) -> Path | None:
        path = self._only or next(
            (self._by_name[key] for key in _keys(name) if key in self._by_name),
            next(iter(self._by_name.values())) if not name and len(set(self._by_name.values())) == 1 else None,
        )
        if path is None:
            self.missing[name] = f"it is not below {self._root}"
            return None
        try:
            self.times_of(path)
        except (DecodeError, OSError) as error:
            self.missing[name] = getattr(error, "reason", None) or str(error)
            return None
        return path

    def times_of(self, path: Path) -> np.ndarray | None:
        """When each frame is shown, and when the last one ends, seconds; None where a rate says."""
        if path not in self._times:
            if self._fps is not None:
                self._times[path] = None
            else:
                with open_video(path) as decoder:
                    times = decoder.times()
                    self._times[path] = np.append(times, times[-1] + 1 / decoder.info.fps if len(times) else 0.0)
        return self._times[path]

    def second(self, name: str, path: Path, frame: float) -> float:
        """When a frame is shown; frames after the end are shown at the end."""
        times = self.times_of(path)
        if times is None:
            assert self._fps is not None, "either is known"
            return frame / self._fps
        if frame >= len(times) and path not in self._too_short:
            self._too_short.add(path)
            log.warning(
                "%s: frame %d is labelled, and %s has %d: if the labelling page assumed another rate than the "
                "film's, say it (--fps)",
                name,
                frame,
                path,
                len(times) - 1,
            )
        return float(times[min(int(frame), len(times) - 1)])


def _by_name(root: Path) -> dict[str, Path]:
    """The films below a folder by their path from there, their name, and their name without ending, in small letters;
    of several films of one name none."""
    files = [Path(path) for path, _ in find_videos(root)] or [Path(path) for path in find_films(root)]
    found: dict[str, Path] = {}
    uses: Counter[str] = Counter()
    for file in files:
        keys = {file.relative_to(root).as_posix().lower(), file.name.lower(), file.stem.lower()}
        uses.update(keys)
        found |= dict.fromkeys(keys, file)
    return {key: file for key, file in found.items() if uses[key] == 1}


def _keys(name: str) -> Iterator[str]:
    """The names by which to look for a film, the most exact one first: a path or an address, its end, its name, that
    without what was put before it, and without ending."""
    parts = urlsplit(name)
    path = unquote(parse_qs(parts.query).get("d", [parts.path])[0]) if parts.query else unquote(name)
    pure = PurePosixPath(path.replace("\\", "/").lower())
    yield from ("/".join(pure.parts[i:]) for i in range(len(pure.parts)))
    own = _UPLOADED.sub("", pure.name)
    yield from (own, pure.stem, PurePosixPath(own).stem)


def _boxes_of(found: Iterable[KeyBox], films: _Films) -> dict[Moment, tuple[Actor, ...]]:
    """The boxes of the films that were found, by film and second; persons are tracks."""
    persons: dict[tuple[str, int], int] = {}
    boxes: dict[Moment, tuple[Actor, ...]] = {}
    for box in found:
        person = persons.setdefault((box.film, box.track), len(persons))
        film = films.find(box.film)
        if film is not None:
            second = films.second(box.film, film, box.at) if box.in_frames else box.at
            key = (film.stem, round(second, 6))
            boxes[key] = (*boxes.get(key, ()), Actor(box.box, person=person))
    return boxes
