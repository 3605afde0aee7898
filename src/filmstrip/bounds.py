"""Bounds of numeric settings: declared in the annotation of each, and checked by one function.

``num_frames: Count = 16`` stays an ``int`` for every reader of the annotation (the command line, ``config.json``, a
type checker); :func:`check_numbers` also reads the bounds in ``Count``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from filmstrip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The range of a finite number; unbounded on a side without a limit."""

    min: float | None = None
    max: float | None = None
    above: float | None = None
    """Exclusive minimum."""
    below: float | None = None
    """Exclusive maximum."""
    multiple: int | None = None
    """Required divisor of a whole number."""

    def hold(self, value: float) -> bool:
        """Whether a finite number lies within."""
        return (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.multiple is None or value % self.multiple == 0)
        )

    def text(self) -> str:
        """The range in words, to follow "a number"; empty if every number is allowed."""
        lowest, highest = self.min is not None, self.max is not None
        if lowest and (highest or self.below is not None):
            text = f" from {self.min} to {self.max if highest else f'below {self.below}'}"
        elif lowest:
            text = f" of at least {self.min}"
        else:
            parts = [f"above {self.above}"] if self.above is not None else []
            parts += [f"up to {self.max}"] if highest else []
            parts += [f"below {self.below}"] if self.below is not None else []
            text = f" {' and '.join(parts)}" if parts else ""
        return text + (f" that is a multiple of {self.multiple}" if self.multiple else "")


class Ascending:
    """Marks a pair of numbers as a range: the first must not exceed the second."""


class NotEmpty:
    """Marks a tuple with at least one item."""


Count = Annotated[int, Bounds(min=1)]
"""A number of things, or a size in pixels, positions or channels: at least one."""
CountOrZero = Annotated[int, Bounds(min=0)]
"""A number of things that may be zero, or zero until the data determine it."""
EvenSize = Annotated[int, Bounds(min=16, multiple=2)]
"""Height or width of written videos, pixels: even, for chroma subsampling."""
Seed = Annotated[int, Bounds(min=0, max=2**63 - 1)]
"""A random seed."""
Rate = Annotated[float, Bounds(above=0)]
"""A learning rate, frame rate or scale: above zero."""
Weight = Annotated[float, Bounds(min=0)]
"""A loss weight, penalty or noise scale: zero disables it."""
Share = Annotated[float, Bounds(min=0, max=1)]
"""A share of a whole, or a probability."""
ShareBelowOne = Annotated[float, Bounds(min=0, below=1)]
"""A dropout rate, or the decay of a moving average."""
PositiveShare = Annotated[float, Bounds(above=0, max=1)]
"""A share of a whole, above zero."""
Port = Annotated[int, Bounds(min=0, max=65535)]
"""A number of a TCP port; 0 stands for any free one."""
Quality = Annotated[int, Bounds(min=0, max=51)]
"""Constant rate factor of H.264; lower is better quality."""
AnyNumber = Annotated[float, Bounds()]
"""A number that may be negative: a position, a shift."""
AnyWhole = Annotated[int, Bounds()]
"""The same, without a fraction."""


def check_numbers(config: Any, *, path: str = "") -> None:
    """Refuse a configuration with a number outside its bounds, in itself or in a nested configuration.

    Args:
        config: a dataclass whose numeric fields are annotated with :data:`Count` and its relatives.
        path: the name of ``config`` in messages, the prefix of its fields, as on the command line.

    Raises:
        UserError: names each field, its value, and what was expected.
    """
    _refuse(_wrong(config, type(config), path))


def check_options(options: Any) -> None:
    """The same for a dataclass that is read off the command line: its fields are named as they are typed there.

    Raises:
        UserError: names each option, what it is, and what was expected.
    """
    _refuse(
        line
        for name, hint in hints_of(options.__class__).items()
        for line in _wrong(getattr(options, name), hint, f"--{name.replace('_', '-')}")
    )


def _refuse(wrong: Iterator[str]) -> None:
    if lines := list(wrong):
        raise UserError("; ".join(lines))


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, with their metadata."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _wrong(value: Any, annotation: Any, path: str) -> Iterator[str]:
    """A line for each number in ``value`` that violates its annotation."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for name, hint in hints_of(type(value)).items():
            yield from _wrong(getattr(value, name), hint, f"{path}.{name}" if path else name)
        return
    marks: tuple[Any, ...] = ()
    if typing.get_origin(annotation) is Annotated:
        annotation, *rest = typing.get_args(annotation)
        marks = tuple(rest)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if value is not None:
            yield from _wrong(value, _member(value, args), path)
    elif annotation in (int, float):
        bounds = next((mark for mark in marks if isinstance(mark, Bounds)), Bounds())
        if not _is_number(value, annotation) or not bounds.hold(value):
            kind = "whole number" if annotation is int else "number"
            yield f"{path} is {_shown(value)}: expected a {kind}{bounds.text()}"
    elif isinstance(value, tuple):
        yield from _wrong_items(value, args, marks, path)


def _wrong_items(value: tuple[Any, ...], args: tuple[Any, ...], marks: tuple[Any, ...], path: str) -> Iterator[str]:
    if not value and any(mark is NotEmpty for mark in marks):
        yield f"{path} is empty: expected at least one number"
    repeated = len(args) == 2 and args[1] is ...
    if args and not repeated and len(args) != len(value):
        yield f"{path} is {_shown(value)}: expected {len(args)} numbers"
        return
    before: list[str] = []
    for i, item in enumerate(value):
        hint = (args[0] if repeated else args[i]) if args else Any
        before += _wrong(item, hint, f"{path}[{i}]")
    yield from before
    if not before and any(mark is Ascending for mark in marks) and value[0] > value[1]:
        yield f"{path} is {_shown(value)}: expected a range, the lower end first"


def _member(value: Any, members: tuple[Any, ...]) -> Any:
    """The member of a union by which a value is checked: a tuple for a tuple, else a number; of several, the first
    that the value fits, or else the first."""
    if (isinstance(value, str) and str in members) or (isinstance(value, bool) and bool in members):
        return Any
    tuples = [member for member in members if typing.get_origin(_plain(member)) is tuple]
    numeric = [member for member in members if _plain(member) in (int, float)]
    candidates = tuples if isinstance(value, tuple) and tuples else numeric
    fitting = (member for member in candidates if not any(_wrong(value, member, "")))
    return next(fitting, candidates[0] if candidates else Any)


def _plain(annotation: Any) -> Any:
    """An annotation without its marks."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _is_number(value: Any, kind: type) -> bool:
    wanted = numbers.Integral if kind is int else numbers.Real
    return isinstance(value, wanted) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
