"""What a sample's label is: one class, several classes, or numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.protocols import Labels

MEANINGS = {"class": "one class each", "several": "several classes each", "number": "numbers"}
"""Kinds of label in words, as videos have them."""
_SHOWN_ERRORS = 5


@dataclass(frozen=True)
class SeveralClasses:
    """The classes of a sample that may have several, or none."""

    indices: tuple[int, ...]
    num_classes: int

    def tensor(self) -> Tensor:
        """1 for each of its classes and 0 for all others, ``K`` float32."""
        return torch.zeros(self.num_classes).index_fill_(0, torch.tensor(self.indices, dtype=torch.int64), 1.0)


@dataclass(frozen=True)
class Numbers:
    """The numbers that are to be predicted of a sample."""

    values: tuple[float, ...]

    def tensor(self) -> Tensor:
        """The numbers, ``K`` float32."""
        return torch.tensor(self.values)


Target = SeveralClasses | Numbers


def scores_of(logits: Tensor, labels: Labels) -> Tensor:
    """What outputs ``B K`` of a network say: probabilities of which one is true (softmax), of each one alone
    (sigmoid), or numbers as they are."""
    if labels == "number":
        return logits
    return logits.sigmoid() if labels == "several" else logits.softmax(dim=-1)


def check_labels(name: str, taken: tuple[Labels, ...], labels: Labels) -> None:
    """See that a method learns from labels such as the data's.

    Raises:
        UserError: it does not; says from which it does.
    """
    if labels not in taken:
        meant = " or ".join(MEANINGS[one] for one in taken)
        raise UserError(
            f"{name} learns from videos with {meant}, and these have {MEANINGS[labels]} (data.reads.labels "
            f"{labels}): train another method, such as recognition.vit, or leave the setting out"
        )


def listed(cell: str, separator: str) -> list[str]:
    """The items of a cell of a table: those of a JSON list, or those between separators, without blanks around."""
    if cell.startswith("["):
        try:
            values = json.loads(cell)
        except ValueError:
            values = None
        if isinstance(values, list):
            return [str(value) for value in values]
    return [item for item in (part.strip() for part in cell.split(separator)) if item]


def items_in(cell: str) -> list[str]:
    """The labels in a cell: those of a JSON list, or between semicolons."""
    return [item.strip() for item in listed(cell, ";")]


def several_of_cells(
    cells: Iterable[str | None], known: Sequence[str] | None, where: Path
) -> tuple[tuple[str, ...], list[SeveralClasses | None]]:
    """The classes in the cells of a column, sorted unless ``known`` gives their order, and the target of each cell;
    an empty cell has none, and ``[]`` none of the classes.

    Raises:
        UserError: a class is not among the ``known`` ones.
    """
    items = [None if cell is None else items_in(cell) for cell in cells]
    given = {name for found in items if found is not None for name in found}
    if known is not None and (strange := sorted(given - set(known))):
        raise UserError(f"{where}: dataset.json does not list the class {', '.join(map(repr, strange[:5]))}")
    classes = tuple(sorted(given)) if known is None else tuple(known)
    places = {name: i for i, name in enumerate(classes)}
    return classes, [
        None if found is None else SeveralClasses(tuple(sorted({places[name] for name in found})), len(classes))
        for found in items
    ]


def numbers_of_cells(
    cells: Iterable[tuple[int, str | None]], known: Sequence[str] | None, column: str, where: Path
) -> tuple[tuple[str, ...], list[Numbers | None]]:
    """The names of the numbers in the cells of a column, and the target of each numbered cell; an empty cell has
    none.

    One number is named like the column, and several ``column 1``, ``column 2``, ...; or as ``known`` has them.

    Raises:
        UserError: a cell holds something else, or cells do not hold the same number of them; lists the rows.
    """
    found: list[Numbers | None] = []
    errors: list[str] = []
    count = None if known is None else len(known)
    for row, cell in cells:
        if cell is None:
            found.append(None)
            continue
        try:
            values = tuple(float(item) for item in items_in(cell))
        except ValueError:
            values = ()
        if not values or not all(map(math.isfinite, values)):
            errors.append(f"row {row}: the label {cell!r} should be a number, or several with ; between them")
        elif count is not None and len(values) != count:
            errors.append(f"row {row}: the label {cell!r} holds {len(values)} numbers, not {count}")
        else:
            count = len(values)
            found.append(Numbers(values))
    if errors:
        more = f"\nand {len(errors) - _SHOWN_ERRORS} more rows" if len(errors) > _SHOWN_ERRORS else ""
        raise UserError(
            f"{where} does not hold numbers (data.reads.labels number):\n" + "\n".join(errors[:_SHOWN_ERRORS]) + more
        )
    if known is not None:
        return tuple(known), found
    return ((column,) if count in (None, 1) else tuple(f"{column} {i + 1}" for i in range(count or 0))), found


def looks_like(cells: Iterable[str | None]) -> Labels:
    """What the cells of a column of labels look like."""
    given = [cell for cell in cells if cell is not None]
    if any(";" in cell or (cell.startswith("[") and cell.endswith("]")) for cell in given):
        return "several"
    fractions = [cell for cell in given if not cell.lstrip("-").isdecimal()]
    return "number" if fractions and all(_is_number(cell) for cell in given) else "class"


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
