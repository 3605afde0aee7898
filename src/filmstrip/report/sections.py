"""Sections of text and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from filmstrip.report.markup import Markup, join, tag

Cell = str | float | int | None
"""One value of a table; ``None`` is shown as a dash."""


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text."""

    title: str
    paragraphs: Sequence[str]

    def html(self) -> Markup:
        """One ``<p>`` for each paragraph."""
        return join(tag("p", paragraph) for paragraph in self.paragraphs)


@dataclass(frozen=True)
class Facts:
    """Key figures as tiles: name and value."""

    title: str
    facts: Sequence[tuple[str, str]]

    def html(self) -> Markup:
        """A description list, shown as tiles."""
        tiles = (tag("div", tag("dt", name), tag("dd", value)) for name, value in self.facts)
        return tag("dl", *tiles, class_="facts")


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, number format, and which value is the best."""

    name: str
    format: str = ""
    """A format specification for numbers, such as ``.1%`` or ``,.0f``."""
    best: Literal["highest", "lowest"] | None = None

    def text(self, cell: Cell) -> str:
        """A cell as text."""
        if cell is None:
            return "–"
        return cell if isinstance(cell, str) else format(cell, self.format)

    def best_of(self, cells: Sequence[Cell]) -> str | None:
        """The text of the best number of the column; cells with equal text are tied."""
        numbers = [cell for cell in cells if isinstance(cell, int | float)]
        if self.best is None or len(numbers) < 2:
            return None
        return self.text(max(numbers) if self.best == "highest" else min(numbers))


@dataclass(frozen=True)
class Table:
    """Rows under named columns; the first cell of a row names it."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    """Short paragraphs below the table."""
    wraps: bool = False
    """Whether long words in cells, such as paths, are broken rather than scrolled."""

    def html(self) -> Markup:
        """A table that scrolls horizontally if it does not fit."""
        best = [column.best_of([row[i] for row in self.rows]) for i, column in enumerate(self.columns)]
        numeric = [any(isinstance(row[i], int | float) for row in self.rows) for i in range(len(self.columns))]
        head = (
            tag("th", column.name, scope="col", class_="number" if number else None)
            for column, number in zip(self.columns, numeric, strict=True)
        )
        rows = (tag("tr", *self._cells(row, best, numeric)) for row in self.rows)
        table = tag(
            "table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="wraps" if self.wraps else None
        )
        return join([scrolling(table, self.title), *(tag("p", note, class_="note") for note in self.notes)])

    def _cells(self, row: Sequence[Cell], best: Sequence[str | None], numeric: Sequence[bool]) -> list[Markup]:
        cells = []
        for i, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
            text = column.text(cell)
            shown = tag("strong", text, tag("span", " (best)", class_="unseen")) if text == best[i] else text
            kind = "number" if numeric[i] else None
            cells.append(tag("td", shown, class_=kind) if i else tag("th", shown, scope="row", class_=kind))
        return cells


def scrolling(content: Markup, label: str) -> Markup:
    """Content that scrolls within its own box, by keyboard too, instead of widening the page."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")
