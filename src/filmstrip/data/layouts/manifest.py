"""Collections that a table describes: CSV or Parquet with a row for each video, or for each part of one."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from filmstrip.data.actions import Sidecar
from filmstrip.data.labels import MEANINGS, Target, looks_like, numbers_of_cells, several_of_cells
from filmstrip.data.layouts.folder import VIDEO_SUFFIXES
from filmstrip.data.sample import Sample, Source, collect, hold_out, number_labels, read_notes
from filmstrip.errors import UserError
from filmstrip.files import cache_folder, write_bytes
from filmstrip.protocols import Labels
from filmstrip.video.images import IMAGE_SUFFIXES
from filmstrip.video.remote import address_of, fetch, name_of

MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")

COLUMNS = {
    "path": ("path", "video_path", "filepath", "file_path", "video", "file", "filename", "file_name"),
    "label": ("label", "class", "class_name", "action", "category"),
    "split": ("split", "subset", "partition"),
    "start": ("start", "start_time", "t_start"),
    "end": ("end", "end_time", "t_end"),
    "group": ("group", "subject", "actor"),
    "actions": ("actions",),
    "fps": ("fps", "frame_rate"),
}
"""Accepted names of each column, in order of preference; case and surrounding blanks are ignored."""
TEXTS = ("text", "caption", "sentence", "description")
"""Accepted names of the columns of captions. There may be several, repeated or numbered (``caption_2``); a cell holds
one caption, or several as a JSON list."""

SHOWN_ERRORS = 5

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """One row of a table."""

    number: int
    """Number as an editor shows it, the header being row 1."""
    cells: dict[str, str | None]
    """Cells by the names of ``COLUMNS``."""
    texts: tuple[str, ...]
    """Captions, from all of their columns."""


def open_manifest(path: Path, fps: float | None = None, labels: Labels = "class") -> Source:
    """Open a manifest. Its paths are relative to its own folder or to one of that folder's parents, or addresses.

    A manifest at an address has paths that are relative to that. A path may be a folder of frames: of ``fps`` frames
    per second unless its row says how many. A label is one class, several (``a;b``, or a JSON list), or numbers, as
    ``labels`` says.

    Rows without a split are left out when other rows have one. Files that are missing are found out when they are
    read, like unreadable ones; only when none of the first is there, the manifest is refused.

    Raises:
        UserError: the table has no column of paths, or invalid cells, or labels of another kind; the message lists
            the rows.
    """
    address = address_of(path)
    path = path if address is None else _fetched(address)
    rows = _read(path)
    if any(row.cells["split"] for row in rows):
        kept = [row for row in rows if row.cells["split"]]
        if len(kept) < len(rows):
            _warn(f"{path}: {len(rows) - len(kept)} of {len(rows)} rows have no split and are skipped")
        rows = kept
    notes = read_notes(path.parent)
    spans = _spans(path, rows)
    base = str(_base(path, rows)) if address is None else address.rpartition("/")[0]
    rates = _rates(path, rows, fps or notes.fps)
    cells = [row.cells["label"] for row in rows]
    numbers: list[int | None] = [None] * len(rows)
    targets: Sequence[Target | None] = [None] * len(rows)
    if labels == "several":
        classes, targets = several_of_cells(cells, notes.classes, path)
    elif labels == "number":
        numbered = [(row.number, cell) for row, cell in zip(rows, cells)]
        classes, targets = numbers_of_cells(numbered, notes.classes, "label", path)
    else:
        if (seem := looks_like(cells)) != "class":
            _warn(
                f"{path}: labels look like {MEANINGS[seem]} and are taken for the names of classes; "
                f"--data.reads.labels {seem} reads them as such"
            )
        classes, numbers = number_labels(cells, notes.classes, path)
    samples = [
        Sample(
            path=address_of(cells["path"]) or os.path.join(base, str(cells["path"])),
            name=_name(str(cells["path"]), start, end),
            label=label,
            target=target,
            split=cells["split"] or "",
            start=start,
            end=end,
            text=texts,
            group=cells["group"],
            fps=rate,
            actions=Sidecar(os.path.join(base, cells["actions"])) if cells["actions"] else None,
        )
        for (_, cells, texts), (start, end), label, target, rate in zip(rows, spans, numbers, targets, rates)
    ]
    if samples and not samples[0].split:
        samples = hold_out(samples)
    return replace(collect(path.parent, classes, samples, notes), labels=labels)


def manifest_of(path: Path) -> Path | None:
    """The manifest that opening ``path`` reads: itself, or the one in a folder; none where there is none."""
    if (address := address_of(path)) is not None:
        return path if Path(name_of(address)).suffix.lower() in MANIFEST_SUFFIXES else None
    path = Path(path).expanduser()
    if path.is_dir():
        inside = (path / f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES)
        return next((file for file in inside if file.is_file()), None)
    return path if path.suffix.lower() in MANIFEST_SUFFIXES else None


def rows_without_label(path: Path) -> list[int]:
    """The numbers of a manifest's rows without a label, as an editor shows them."""
    address = address_of(path)
    rows = _read(path if address is None else _fetched(address))
    return [row.number for row in rows if not row.cells["label"]]


@functools.cache
def _warn(message: str) -> None:
    """Say something once, however often a manifest is opened: several runs may share it."""
    log.warning(message)


def _read(path: Path) -> list[Row]:
    """The rows of a table, with empty cells as ``None``; entirely empty rows are dropped."""
    header, table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    given = {name.strip().lower().replace(" ", "_"): i for i, name in enumerate(header)}
    places = {role: next((given[name] for name in names if name in given), None) for role, names in COLUMNS.items()}
    if places["path"] is None:
        raise UserError(
            f"{path} has no column of paths: the first row must name the columns, one of them "
            f"{' or '.join(COLUMNS['path'][:4])}; it has {', '.join(header) or 'nothing'}"
        )
    columns = _text_columns(header)
    rows: list[Row] = []
    errors = []
    for number, values in table:
        cells = {role: None if i is None or i >= len(values) else values[i] for role, i in places.items()}
        if (cells["label"] or "").lower() == "nan":
            errors.append(f"row {number}: the label is {cells['label']!r}: leave the cell empty for none")
        elif cells["path"]:
            told = [values[i] for i in columns if i < len(values)]
            rows.append(Row(number, cells, tuple(text for cell in told for text in captions_in(cell))))
        elif any(values):
            errors.append(f"row {number}: no path")
    _refuse(path, errors)
    if not rows:
        raise UserError(f"{path} lists no videos")
    return rows


def _text_columns(header: Sequence[str]) -> list[int]:
    """Places of the columns of captions: all of the most preferred name."""
    names = [name.strip().lower().replace(" ", "_") for name in header]
    for wanted in TEXTS:
        if found := [i for i, name in enumerate(names) if re.fullmatch(rf"{wanted}(s|_?\d+)?", name)]:
            return found
    return []


def captions_in(cell: str | None) -> tuple[str, ...]:
    """The captions in a cell: those of a JSON list of strings, or the cell as it is."""
    if cell is not None and cell.startswith("["):
        try:
            values = json.loads(cell)
        except ValueError:
            values = None
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            return tuple(value.strip() for value in values if value.strip())
    return (cell,) if cell else ()


def cell_of(captions: Sequence[str]) -> str | None:
    """The inverse of :func:`captions_in`."""
    if len(captions) == 1 and not captions[0].startswith("["):
        return captions[0]
    return json.dumps(list(captions), ensure_ascii=False) if captions else None


def _read_text(path: Path) -> tuple[list[str], list[tuple[int, list[str | None]]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            return header, [(reader.line_num, [cell.strip() or None for cell in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}") from None


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str | None]]]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file: {error}") from None
    columns = [column.to_pylist() for column in table.columns]
    rows = [(number, [_cell(value) for value in row]) for number, row in enumerate(zip(*columns), start=2)]
    return list(table.column_names), rows


def _cell(value: Any) -> str | None:
    """A Parquet value as the text that a CSV file would hold."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def _spans(path: Path, rows: Iterable[Row]) -> list[tuple[float | None, float | None]]:
    """Start and end of each row, seconds."""
    spans: list[tuple[float | None, float | None]] = []
    errors = []
    for number, cells, _ in rows:
        try:
            start, end = (None if cells[role] is None else _seconds(str(cells[role])) for role in ("start", "end"))
        except ValueError:
            errors.append(
                f"row {number}: start {cells['start']!r} and end {cells['end']!r} should be seconds, or h:mm:ss"
            )
            continue
        if not 0 <= (start or 0.0) < (math.inf if end is None else end):
            errors.append(f"row {number}: start {start} and end {end} should satisfy 0 <= start < end")
        spans.append((start, end))
    _refuse(path, errors)
    return spans


def _seconds(cell: str) -> float:
    """A time in seconds, of a number or of hours, minutes and seconds with colons between them.

    Raises:
        ValueError: it is neither.
    """
    *larger, seconds = cell.split(":")
    if len(larger) > 2 or not all(part.strip().isdecimal() for part in larger) or (larger and float(seconds) >= 60):
        raise ValueError(cell)
    minutes = 0
    for part in larger:
        minutes = 60 * minutes + int(part)
    return 60 * minutes + float(seconds)


def _fetched(address: str) -> Path:
    """A copy of the manifest at an address, in a folder of its own."""
    content = fetch(address)
    digest = hashlib.sha256(address.encode() + content).hexdigest()[:16]
    copy = cache_folder() / "manifests" / digest / name_of(address).rpartition("/")[2]
    write_bytes(content, copy)
    return copy


def _rates(path: Path, rows: Iterable[Row], default: float | None) -> list[float | None]:
    """Frames per second of each row that is a folder of frames, by its name; None of others, or where it is
    unknown."""
    rates: list[float | None] = []
    errors = []
    for number, cells, _ in rows:
        suffix = os.path.splitext(str(cells["path"]))[1].lower()
        if suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES or address_of(cells["path"]) is not None:
            rates.append(None)
            continue
        try:
            rate = default if cells["fps"] is None else float(cells["fps"])
        except ValueError:
            rate = math.nan
        if rate is not None and not 0 < rate < math.inf:
            errors.append(f"row {number}: fps {cells['fps']!r} should be a number of frames per second, above 0")
        rates.append(rate)
    _refuse(path, errors)
    return rates


def _base(path: Path, rows: list[Row]) -> Path:
    """The folder that the paths are relative to: the nearest one from the manifest up where one of them exists."""
    first = [row for row in rows if address_of(row.cells["path"]) is None][:20]
    if not first:
        return path.parent
    for folder in (path.parent, *path.absolute().parent.parents):
        if any((folder / str(row.cells["path"])).exists() for row in first):
            return folder
    number, cells, _ = first[0]
    raise UserError(
        f"{path}, row {number}: {cells['path']} is not below {path.parent.absolute()} or one of the folders that "
        "hold it (nor are the next rows): paths in a manifest are relative to its folder, or absolute"
    )


def _name(path: str, start: float | None, end: float | None) -> str:
    """The path as the manifest has it (an absolute one shortened to its last folder, an address to its host and
    path), and the part of the video."""
    name = "/".join(Path(path).parts[-2:]) if os.path.isabs(path) else path
    if (address := address_of(path)) is not None:
        name = name_of(address)
    return name if start is None and end is None else f"{name} [{start or 0:g}-{'' if end is None else f'{end:g}'}]"


def _refuse(path: Path, errors: list[str]) -> None:
    if errors:
        more = f"\nand {len(errors) - SHOWN_ERRORS} more rows" if len(errors) > SHOWN_ERRORS else ""
        raise UserError(f"{path}:\n" + "\n".join(errors[:SHOWN_ERRORS]) + more)
