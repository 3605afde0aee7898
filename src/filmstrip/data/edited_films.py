"""Edited films side by side: what several methods made of the same edits, as files with a table beside them.

    folder/edited.csv             a row for each edited film: number, method, film, source, target, prompts, type,
                                  run, and what was measured of it
    folder/METHOD/00000.mp4       the edit of this number by a method
    folder/source/00000.mp4       its source as methods saw it
    folder/target/00000.mp4       the true edited video, where it is known

Methods of elsewhere take part by a row for each of their films, whose paths are relative to the table.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filmstrip.data.edits import edit_type
from filmstrip.errors import UserError
from filmstrip.files import write_csv

TABLE = "edited.csv"
SOURCE, TARGET = "source", "target"
"""Folders of the films that no method made, which no method may be called."""
_TEXTS = ("source_prompt", "edit_prompt", "type")
_COLUMNS = ("number", "method", "film", "source", *_TEXTS)
_OPTIONAL = ("target", "run")


@dataclass(frozen=True, kw_only=True)
class EditedFilm:
    """What one method made of one edit."""

    number: int
    """Number of the edit, the same for all methods."""
    method: str
    film: Path
    source: Path
    source_prompt: str
    edit_prompt: str
    type: str
    """Type of the edit, one of :data:`filmstrip.data.edits.TYPES`."""
    target: Path | None = None
    """The true edited video, where it is known."""
    run: str = ""
    """Run folder whose network edited it."""
    measures: dict[str, float] = field(default_factory=dict)
    """Measures of this film by their names."""

    @property
    def asked(self) -> tuple[str, str, str]:
        """What the edit was: both prompts and the type."""
        return self.source_prompt, self.edit_prompt, self.type


def read_edited(folder: Path) -> list[EditedFilm]:
    """The edited films of a folder, by number and method in the order of the table.

    Raises:
        UserError: there is no such table, it lacks a column, a cell is wrong or a film is not there, two rows are of
            one edit by one method, or rows of one number are of different edits.
    """
    table = Path(folder).expanduser() / TABLE
    if not table.is_file():
        raise UserError(
            f"{folder} holds no edited films: it has no {TABLE}, which `filmstrip eval RUN --protocol video_edit "
            "--out FOLDER` writes"
        )
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise UserError(f"{table} lacks the columns {', '.join(missing)}; it has {', '.join(columns)}")
        films = [_film(table, number, row) for number, row in enumerate(reader, 2)]
    if not films:
        raise UserError(f"{table} has no rows")
    _check(table, films)
    return films


def add_edited(folder: Path, films: Sequence[EditedFilm]) -> None:
    """Write films into the table of a folder, in place of those of the same edits by the same methods.

    Raises:
        UserError: the folder holds films of other edits, or of the same method with another run; nothing is written.
    """
    table = folder / TABLE
    there = read_edited(folder) if table.is_file() else []
    check_goes_with(folder, there, films)
    new = {(film.number, film.method): film for film in films}
    kept = [film for film in there if (film.number, film.method) not in new]
    methods = list(dict.fromkeys(film.method for film in [*there, *films]))
    whole = sorted([*kept, *new.values()], key=lambda film: (film.number, methods.index(film.method)))
    measures = list(dict.fromkeys(name for film in whole for name in film.measures))
    rows = [_row(folder, film) for film in whole]
    write_csv(rows, table, [*_COLUMNS[:4], "target", *_TEXTS, "run", *measures])


def check_goes_with(folder: Path, there: Sequence[EditedFilm], films: Sequence[EditedFilm]) -> None:
    """See that films can be added to those that a folder has.

    Raises:
        UserError: they are of other edits, or of a method of the same name with another run.
    """
    asked = {film.number: film.asked for film in there}
    runs = {film.method: film.run for film in there}
    for film in films:
        if asked.get(film.number, film.asked) != film.asked:
            raise UserError(
                f"{folder} holds films of other edits (number {film.number} is {asked[film.number][1]!r} there, and "
                f"{film.edit_prompt!r} here): give another folder"
            )
        if runs.get(film.method, film.run) != film.run:
            raise UserError(
                f"{folder} holds edits by {film.method} with the run {runs[film.method] or 'of elsewhere'}, and "
                f"these are of {film.run}: give another folder, or give the run folder another name"
            )


def _row(folder: Path, film: EditedFilm) -> dict[str, object]:
    def place(path: Path | None) -> str:
        if path is None:
            return ""
        root = folder.resolve()
        return str(path.resolve().relative_to(root) if path.resolve().is_relative_to(root) else path.resolve())

    row: dict[str, object] = {name: getattr(film, name) for name in ("number", "method", *_TEXTS, "run")}
    row |= {name: place(getattr(film, name)) for name in ("film", "source", "target")}
    return row | {name: f"{value:.6g}" for name, value in film.measures.items()}


def _film(table: Path, line: int, row: dict[str, str | None]) -> EditedFilm:
    cells = {name: (value or "").strip() for name, value in row.items() if name is not None}
    where = f"{table}, row {line}"
    if empty := [name for name in _COLUMNS if not cells[name]]:
        raise UserError(f"{where}: {', '.join(empty)} is empty")
    if not cells["number"].isdecimal():
        raise UserError(f"{where}: number {cells['number']!r} is no whole number")
    try:
        kind = edit_type(cells["type"])
        measures = _measures(cells)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    places = {name: table.parent / cells[name] for name in ("film", "source", "target") if cells.get(name)}
    if absent := [str(path) for path in places.values() if not path.is_file()]:
        raise UserError(f"{where}: {absent[0]} is not there")
    return EditedFilm(
        number=int(cells["number"]),
        method=cells["method"],
        film=places["film"],
        source=places["source"],
        target=places.get("target"),
        source_prompt=cells["source_prompt"],
        edit_prompt=cells["edit_prompt"],
        type=kind,
        run=cells.get("run", ""),
        measures=measures,
    )


def _measures(cells: dict[str, str]) -> dict[str, float]:
    """The numbers of a row in columns of no other meaning."""
    found = {}
    for name, cell in cells.items():
        if name in (*_COLUMNS, *_OPTIONAL) or not cell:
            continue
        try:
            found[name] = float(cell)
        except ValueError:
            raise UserError(f"{name} is {cell!r}, and measures are numbers") from None
    return found


def _check(table: Path, films: Sequence[EditedFilm]) -> None:
    seen = set()
    asked: dict[int, tuple[str, str, str]] = {}
    for film in films:
        if (film.number, film.method) in seen:
            raise UserError(f"{table} has two films of number {film.number} by {film.method}")
        seen.add((film.number, film.method))
        if asked.setdefault(film.number, film.asked) != film.asked:
            raise UserError(f"{table}: rows of number {film.number} have different prompts or types")
