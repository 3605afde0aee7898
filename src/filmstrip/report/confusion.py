"""Confusion matrix of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from filmstrip.report.markup import Markup, join, tag
from filmstrip.report.sections import Column, Table, scrolling

MAX_CLASSES = 30
"""Maximum number of classes for a matrix; with more, the most frequent confusions are listed instead."""
MAX_CONFUSIONS = 20


@dataclass(frozen=True)
class ConfusionMatrix:
    """``matrix``: ``K K`` counts, rows are true classes, columns predicted ones."""

    title: str
    matrix: Tensor
    classes: Sequence[str]

    def html(self) -> Markup:
        """A table shaded by the share of each row, or a list of the most frequent confusions."""
        counts = self.matrix.tolist()
        return self._squares(counts) if len(self.classes) <= MAX_CLASSES else self._list(counts)

    def _squares(self, counts: list[list[int]]) -> Markup:
        names = (tag("th", tag("span", name), scope="col") for name in self.classes)
        rows = []
        for i, (name, row) in enumerate(zip(self.classes, counts, strict=True)):
            cells = (
                _square(count, sum(row), name, other, right=i == j)
                for j, (count, other) in enumerate(zip(row, self.classes, strict=True))
            )
            rows.append(tag("tr", tag("th", name, scope="row"), *cells))
        corner = tag("td", "true ↓ · predicted →", class_="corner")
        table = tag("table", tag("thead", tag("tr", corner, *names)), tag("tbody", *rows), class_="confusion")
        note = "Counts of videos, shaded by their share of the row; those on the framed diagonal are correct."
        return join([scrolling(table, self.title), tag("p", note, class_="note")])

    def _list(self, counts: list[list[int]]) -> Markup:
        wrong = [
            (count, sum(row), self.classes[i], self.classes[j])
            for i, row in enumerate(counts)
            for j, count in enumerate(row)
            if i != j and count
        ]
        wrong.sort(key=lambda entry: -entry[0])
        rows = [(truth, taken_for, count, count / total) for count, total, truth, taken_for in wrong[:MAX_CONFUSIONS]]
        columns = (Column("class"), Column("predicted as"), Column("videos"), Column("share of the class", ".0%"))
        note = f"The most frequent of {len(wrong)} kinds of confusion." if wrong else "No video was confused."
        return Table(self.title, columns, rows, (note,)).html()


def _square(count: int, total: int, truth: str, predicted: str, *, right: bool) -> Markup:
    share = count / total if total else 0.0
    kind = " ".join(["right"] * right + ["dark"] * (share > 0.5))
    said = f"{truth} predicted as {predicted}: {count} of {total}"
    return tag("td", count or None, style=f"--share:{share:.3f}", class_=kind or None, title=said)
