"""What the batches of a kind of sample hold, declared: names, shapes, types and padding.

A shape is a string such as ``"B T C H W"``: a letter is a size, equal wherever it stands in a batch; a number is
itself. ``B`` are the rows of a batch.
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
    """A shape and a type that the values of a key can have."""

    shape: str
    dtype: torch.dtype

    @property
    def letters(self) -> frozenset[str]:
        """The sizes that the shape names."""
        return frozenset(part for part in self.shape.split() if not part.isdecimal())

    def size(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape in numbers."""
        return tuple(int(part) if part.isdecimal() else sizes[part] for part in self.shape.split())


@dataclass(frozen=True)
class Key:
    """One entry of a batch."""

    meaning: str
    forms: tuple[Form, ...]
    """None for a list of strings, one for each row; several where it depends on the data which one it is."""
    padding: float | None = None
    """What fills rows up to the largest one; none where all are of one size."""
    when: str = ""
    """Where it is not in every batch: in which ones it is."""
    mirrored: Callable[[Tensor], Tensor] | None = None
    """What becomes of it where the video's left and right are swapped; none where nothing does."""
    unmixed: str = ""
    """What each clip has of its own here, where a mixture of two clips has nothing that could stand for both."""


@dataclass(frozen=True)
class Specification:
    """Every key that batches of a kind may hold."""

    keys: Mapping[str, Key]

    @property
    def always(self) -> frozenset[str]:
        """The keys of every batch."""
        return frozenset(name for name, key in self.keys.items() if not key.when)

    def collate(self, rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows stacked into a batch, filled up with padding where the specification allows rows of several sizes."""
        most = {
            name: tuple(map(max, zip(*(row[name].shape for row in rows))))
            for name in rows[0]
            if self.keys[name].padding is not None
        }
        if any(row[name].shape != size for row in rows for name, size in most.items()):
            rows = [
                {**row, **{name: _filled(row[name], size, self.keys[name].padding) for name, size in most.items()}}
                for row in rows
            ]
        # In a worker this stacks straight into shared memory, which the main process then maps.
        return default_collate(list(rows))

    def blank(self, sizes: Mapping[str, int], device: torch.device | str | None = None) -> Batch:
        """A batch of nothing but padding, or zeros: of each key the first form whose sizes are all given and not 0.

        A key without such a form is left out.
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
        """How a batch departs from the specification, a sentence each; nothing where it agrees."""
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
                wanted = " or ".join(f"{form.shape} {form.dtype}" for form in self.keys[name].forms)
                yield f"{name} is {tuple(value.shape)} {value.dtype}, not {wanted} with {sizes}"

    def table(self) -> str:
        """The specification for a person, as a Markdown table."""
        lines = ["| key | shape and type | padding | |", "|---|---|---|---|"]
        for name, key in self.keys.items():
            forms = " or ".join(f"`{form.shape}` {str(form.dtype).removeprefix('torch.')}" for form in key.forms)
            padding = "" if key.padding is None else f"{key.padding:g}"
            meaning = f"{key.meaning} ({key.when})" if key.when else key.meaning
            lines.append(f"| `{name}` | {forms or 'list of strings'} | {padding} | {meaning} |")
        return "\n".join(lines)


def _filled(value: Tensor, most: Sequence[int], padding: float) -> Tensor:
    """A row with padding after it along every axis, up to the sizes ``most``."""
    missing = [(0, long - short) for long, short in zip(most, value.shape)]
    return F.pad(value, [end for pair in reversed(missing) for end in pair], value=padding)


def _agrees(value: Any, form: Form, sizes: dict[str, int]) -> bool:
    """Whether a tensor has a form; notes the sizes of letters that are met for the first time."""
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
    """A key whose values have one form; ``more`` are other fields of :class:`Key`."""
    return Key(meaning, (Form(shape, dtype),), **more)


COMMON = {
    "seed": of("B", torch.int64, "drives all randomness that belongs to a sample"),
    "name": Key("the samples, for error messages", ()),
    "index": of("B", torch.int64, "the sample's place in its split"),
    "span": of("B 2", torch.float64, "times of the first and last frame, seconds"),
}
"""Keys of every kind."""
