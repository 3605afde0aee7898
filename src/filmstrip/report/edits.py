"""Edited films of several methods side by side: what was measured of each, and the films themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from filmstrip.data.edited_films import EditedFilm, read_edited
from filmstrip.data.edits import MOVING, TYPES
from filmstrip.data.side_by_side import (
    FOLDER,
    HEADS,
    by_edit,
    columns_of,
    rate_of,
    read_films,
    write_side_by_side,
)
from filmstrip.report.clips import Strip, Strips
from filmstrip.report.page import Report, Section
from filmstrip.report.sections import Cell, Column, Table
from filmstrip.report.votes import vote_tables
from filmstrip.runs.contents import REPORT

SHOWN = 3
"""Number of edits of each type on the page."""
_MEASURES: dict[str, Column] = {
    "flow_error": Column("error of the flow (px)", ".2f", "lowest"),
    "psnr": Column("PSNR to the true edit (dB)", ".1f", "highest"),
    "first_frame_psnr": Column("PSNR of the first frame (dB)", ".1f", "highest"),
    "consistency": Column("consistency (dB)", ".1f", "highest"),
}
"""Columns of measures, by what they are called in the table of films; others keep their names."""
_SIMILARITIES = {
    "m_sim": Column("M_sim", ".3f"),  # of which a copy of the source has most
    "m_dir": Column("M_dir", ".3f", "highest"),
    "m_geo": Column("M_geo", ".3f", "highest"),
}
"""Columns of similarities, by what stands before the name of the model."""
_ASIDE = ("source_", "true_", "m_dir_undefined@", "m_geo_clamped@")
"""Beginnings of measures that are no columns: of source and true edit, which have rows, and of what notes tell."""


def edits_report(folder: Path, *, films: bool = True) -> Path:
    """Write ``report.html`` into a folder of edited films; with ``films`` also those side by side, one for each edit.

    Raises:
        UserError: the folder holds no edited films, or one cannot be read.
    """
    edited = read_edited(folder)
    by_number = by_edit(edited)
    methods = list(dict.fromkeys(film.method for film in edited))
    if films:
        for of_edit in by_number.values():
            write_side_by_side(folder, of_edit, methods)
    shared = {number: of for number, of in by_number.items() if len(of) == len(methods)}
    sections: list[Section] = []
    sections += vote_tables(folder, edited)
    if shared:
        sections += measures(shared, methods)
    sections += [
        strips(kind, by_number, methods) for kind in TYPES if any(_is(of, kind) for of in by_number.values())
    ]
    lead = (
        f"{len(by_number):,} edits by {len(methods)} method{'s' if len(methods) > 1 else ''}: {', '.join(methods)}. "
        f"Measures are of the {len(shared):,} edits that all of them made."
    )
    return Report(folder.resolve().name, lead, sections).write(folder / REPORT)


def measures(by_number: Mapping[int, Mapping[str, EditedFilm]], methods: Sequence[str]) -> list[Table]:
    """Means of what was measured, over all edits, then by type for each measure."""
    films = {method: [of[method] for of in by_number.values()] for method in methods}
    names = [
        name
        for name in dict.fromkeys(name for film in films[methods[0]] for name in film.measures)
        if not name.startswith(_ASIDE) and all(any(name in film.measures for film in own) for own in films.values())
    ]
    if not names:
        return []
    columns = [_column(name) for name in names]
    rows: list[list[Cell]] = [[method, *(_mean(films[method], name) for name in names)] for method in methods]
    for said, prefix in (("the source, unedited", "source_"), ("the true edit", "true_")):
        values = [_mean(films[methods[0]], prefix + name) for name in names]
        shown = [None if value is None else column.text(value) for value, column in zip(values, columns)]
        if any(shown):
            rows.append([said, *shown])  # as text: it takes no part in what is best
    notes = [f"Means over {len(by_number):,} edits."]
    if "flow_error" in names:
        notes.append(
            "The error of the flow is the mean distance between the flow of edit and source where the source moves, "
            "in pixels a frame, of edits that keep its motion alone; an unedited source has none."
        )
    if "consistency" in names:
        notes.append("Consistency is the PSNR of each frame to the next one, drawn back along its flow.")
    notes += _of_similarities(films, names)
    found = [Table("Measures", [Column("method"), *columns], rows, notes)]
    kinds = [kind for kind in TYPES if any(_is(of, kind) for of in by_number.values())]
    for name, column in zip(names, columns):
        if len(kinds) > 1:
            heads = [Column(kind.replace("_", "-"), column.format, column.best) for kind in kinds]
            of_kind = [[m, *(_mean(films[m], name, kind) for kind in kinds)] for m in methods]
            found.append(Table(f"By type: {column.name}", [Column("method"), *heads], of_kind))
    return found


def _column(name: str) -> Column:
    """The column of a measure."""
    start, at, model = name.partition("@")
    if at and start in _SIMILARITIES:
        found = _SIMILARITIES[start]
        return replace(found, name=f"{found.name} by {model}")
    return _MEASURES.get(name, Column(name, ".3f"))


def _of_similarities(films: Mapping[str, Sequence[EditedFilm]], names: Sequence[str]) -> list[str]:
    """What similarities are, and how often they have no value, by model."""
    found = []
    for model in dict.fromkeys(name.partition("@")[2] for name in names if name.startswith("m_dir@")):
        without = []
        for method, own in films.items():
            undefined, clamped = (_mean(own, f"{name}@{model}") or 0 for name in ("m_dir_undefined", "m_geo_clamped"))
            if undefined or clamped:
                without.append(f"{method} {undefined:.0%} and {clamped:.0%}")
        found.append(
            f"By {model}: M_sim is the cosine of edit and source, M_dir that of the difference of the videos and of "
            "the texts, M_geo their geometric mean. A copy of the source has M_sim 1 and no M_dir."
            + (f" Undefined, and counted as 0, or with a factor below 0: {', '.join(without)}." if without else "")
        )
    return found


def strips(kind: str, by_number: Mapping[int, Mapping[str, EditedFilm]], methods: Sequence[str]) -> Strips:
    """The first edits of a type, with the source, the true edit, and what each method made of it."""
    own = [of for of in by_number.values() if _is(of, kind)]
    shown = own[:SHOWN]
    columns = columns_of(shown, methods)
    rows = []
    for of_edit in shown:
        film = next(iter(of_edit.values()))
        name = f"{film.number:05d}: {film.source_prompt} → {film.edit_prompt}"
        rows.append(Strip(read_films(of_edit, columns), name))
    more = f" These are the first {SHOWN} of {len(own):,}; all are films in {FOLDER}/." if len(own) > SHOWN else ""
    said = kind.replace("_", "-")
    return Strips(
        said.capitalize(),
        rows,
        [HEADS.get(name, name) for name in columns],
        fps=rate_of(own[0]),
        note=f"Edits of type {said}.{more}",
        wide=True,
    )


def _is(of_edit: Mapping[str, EditedFilm], kind: str) -> bool:
    return next(iter(of_edit.values())).type == kind


def _mean(films: Sequence[EditedFilm], name: str, kind: str | None = None) -> float | None:
    """The mean of a measure over films, or those of a type; none where no film has it. Over all types, the error of
    the flow is that of edits which keep the motion."""
    values = [
        film.measures[name]
        for film in films
        if name in film.measures
        and (film.type == kind if kind is not None else name != "flow_error" or film.type not in MOVING)
    ]
    return sum(values) / len(values) if values else None
