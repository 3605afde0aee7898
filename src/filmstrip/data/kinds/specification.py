"""Declaration of the batches of a kind of sample: keys, shapes, dtypes and padding.

A shape is a string such as ``"B T C H W"``: a letter is a size, the same for all keys of a batch; a number is itself.
``B`` is the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from filmstrip.protocols import Batch


class Form(NamedTuple):
    """A possible shape and dtype of a key's values."""

    shape: str
    dtype: torch.dtype

    @property
    def letters(self) -> frozenset[str]:
        """The letters in the shape."""
        return frozenset(part for part in self.shape.split() if not part.isdecimal())

    def size(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape as numbers."""
        return tuple(int(part) if part.isdecimal() else sizes[part] for part in self.shape.split())


@dataclass(frozen=True)
class Key:
    """One entry of a batch."""

    meaning: str
    forms: tuple[Form, ...]
    """Possible forms; empty for a list of strings, one per row; several if the form depends on the data."""
    padding: float | None = None
    """Padding value for rows smaller than the largest one; None if all rows have one size."""
    when: str = ""
    """Condition under which batches have the key; empty if they always do."""
    mirrored: Callable[[Tensor], Tensor] | None = None
    """Transformation of the value when the video is mirrored; None if it does not change."""
    unmixed: str = ""
    """Name of the clip's own property, if it is undefined for a mixture of two clips; empty otherwise."""


@dataclass(frozen=True)
class Specification:
    """The keys that batches of a kind may have."""

    keys: Mapping[str, Key]

    @property
    def always(self) -> frozenset[str]:
        """The keys that every batch has."""
        return frozenset(name for name, key in self.keys.items() if not key.when)

    def collate(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows stacked into a batch, padded where the specification allows rows of different sizes."""
        most = {
            name: tuple(map(max, zip(*(row[name].shape for row in rows))))
            for name in rows[0]
            if self.keys[name].padding is not None
        }
        if any(row[name].shape != size for row in rows for name, size in most.items()):
            rows = [
                {
                    **row,
                    **{name: _filled(row[name], size, self.keys[name].padding or 0.0) for name, size in most.items()},
                }
                for row in rows
            ]
        # In a worker this stacks directly into shared memory, which the main process then maps.
        return default_collate(list(rows))

    def blank(self, sizes: Mapping[str, int], device: torch.device | str | None = None) -> Batch:
        """A batch of padding, or zeros: for each key the first form whose sizes are all provided and not 0.

        A key without such a form is omitted.
        """
        batch: Batch = {}
        for name, key in self.keys.items():
            if not key.forms:
                batch[name] = [f"row {i}" for i in range(sizes["B"])]
            for form in key.forms:
                if all(sizes.get(letter) for letter in form.letters):
                    batch[name] = torch.full(form.size(sizes), key.padding or 0, dtype=form.dtype, device=device)
                    break
        return batch

    def faults(self, batch: Batch) -> Iterator[str]:
        """Deviations of a batch from the specification, a sentence each."""
        sizes = {"B": len(batch["name"])}
        for name in sorted(self.always - batch.keys()):
            yield f"{name} is missing"
        for name, value in batch.items():
            if name not in self.keys:
                yield f"{name} is not declared"
            elif not self.keys[name].forms:
                if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                    yield f"{name} is not a list of strings"
            elif not any(_agrees(value, form, sizes) for form in self.keys[name].forms):
                expected = " or ".join(f"{form.shape} {form.dtype}" for form in self.keys[name].forms)
                yield f"{name} is {tuple(value.shape)} {value.dtype}, not {expected} with {sizes}"

    def table(self) -> str:
        """The specification as a Markdown table."""
        lines = ["| key | shape and type | padding | |", "|---|---|---|---|"]
        for name, key in self.keys.items():
            forms = " or ".join(f"`{form.shape}` {str(form.dtype).removeprefix('torch.')}" for form in key.forms)
            padding = "" if key.padding is None else f"{key.padding:g}"
            meaning = f"{key.meaning} ({key.when})" if key.when else key.meaning
            lines.append(f"| `{name}` | {forms or 'list of strings'} | {padding} | {meaning} |")
        return "\n".join(lines)


def _filled(value: Tensor, most: Sequence[int], padding: float) -> Tensor:
    """A row padded at the end of every axis, up to the sizes ``most``."""
    missing = [(0, long - short) for long, short in zip(most, value.shape)]
    return F.pad(value, [end for pair in reversed(missing) for end in pair], value=padding)


def _agrees(value: Any, form: Form, sizes: dict[str, int]) -> bool:
    """Whether a tensor has a form; adds the sizes of new letters to ``sizes``."""
    parts = form.shape.split()
    if not isinstance(value, Tensor) or value.dtype != form.dtype or value.ndim != len(parts):
        return False
    found = dict(sizes)
    for part, size in zip(parts, value.shape):
        if size != (int(part) if part.isdecimal() else found.setdefault(part, size)):
            return False
    sizes.update(found)
    return True


def of(shape: str, dtype: torch.dtype, meaning: str, **more: Any) -> Key:
    """A key with one form; ``more`` are other fields of :class:`Key`."""
    return Key(meaning, (Form(shape, dtype),), **more)


COMMON = {
    "seed": of("B", torch.int64, "seed of all randomness of the sample"),
    "name": Key("names of the samples, for error messages", ()),
    "index": of("B", torch.int64, "index of the sample in its split"),
    "span": of("B 2", torch.float64, "times of the first and last frame, in seconds"),
}
"""Keys of all kinds."""
