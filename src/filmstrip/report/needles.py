"""The needles that a language model finds in long texts or videos, as a grid of their lengths and of depths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from filmstrip.evals.needle_grid import Cell, cell_of
from filmstrip.protocols import EVALUATION
from filmstrip.report.curves import Series
from filmstrip.report.markup import Markup, join, tag
from filmstrip.report.sections import scrolling


def is_needle(name: str) -> bool:
    """Whether a metric is a place of the grid."""
    return cell_of(name.removeprefix(EVALUATION)) is not None


def needle_grid(recorded: Mapping[str, Series]) -> NeedleGrid | None:
    """The grid of a run's latest evaluations; none without any."""
    cells = {
        cell: values[-1] for name, (_, values) in recorded.items() if (cell := cell_of(name.removeprefix(EVALUATION)))
    }
    if not cells:
        return None
    beside = {
        name: recorded[f"{EVALUATION}{name}"][1][-1]
        for name in ("oracle", "blind", "chance")
        if EVALUATION + name in recorded
    }
    units = {cell.unit for cell in cells}
    return NeedleGrid(cells if len(units) == 1 else {c: v for c, v in cells.items() if c.unit == "frames"}, beside)


@dataclass(frozen=True)
class NeedleGrid:
    """The share of needles that were found at each place."""

    cells: Mapping[Cell, float]
    beside: Mapping[str, float]
    """The shares that right answers and guesses would have, and what the model has that is shown no video."""
    title: str = "Needles found"

    def html(self) -> Markup:
        """A table shaded by the share: depths from top to bottom, lengths from left to right."""
        lengths = sorted({cell.length for cell in self.cells})
        unit = next(iter(self.cells)).unit
        rows = []
        for depth in sorted({cell.depth for cell in self.cells}):
            squares = (
                _square(cell, self.cells.get(cell)) for cell in (Cell(length, depth, unit) for length in lengths)
            )
            rows.append(tag("tr", tag("th", f"{depth:.0%}", scope="row"), *squares))
        heads = (tag("th", tag("span", f"{length:,}"), scope="col") for length in lengths)
        corner = tag("td", f"depth ↓ · {unit} →", class_="corner")
        table = tag("table", tag("thead", tag("tr", corner, *heads)), tag("tbody", *rows), class_="confusion")
        said = "; ".join(f"{name} {share:.3g}" for name, share in self.beside.items())
        what = "numbers hidden at a depth of a text" if unit == "tokens" else "odd things shown at a depth of a video"
        note = f"Percentage of the {what} that the model named when it was asked"
        if unit == "frames":
            note += ", by their colours"
        return join(
            [scrolling(table, self.title), tag("p", f"{note} ({said})." if said else f"{note}.", class_="note")]
        )


def _square(cell: Cell, share: float | None) -> Markup:
    if share is None:
        return tag("td")
    said = f"{cell.length:,} {cell.unit}, depth {cell.depth:.0%}: {share:.1%} found"
    return tag(
        "td", f"{100 * share:.0f}", style=f"--share:{share:.3f}", class_="dark" if share > 0.5 else None, title=said
    )
