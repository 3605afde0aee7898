"""Lengths of training and of its parts: in optimiser steps, in epochs, or as a share of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from filmstrip.bounds import Count, Rate, Share


@dataclass(frozen=True)
class Steps:
    """A number of optimiser steps: ``Steps(500)``."""

    steps: Count
    """Number of optimiser steps; ``--train.epochs`` sets the length in passes over the training videos instead. An
    existing run can be extended, with the learning rates of a run of the new length."""

    def total(self, steps_per_epoch: float) -> int:
        """The number of steps, whatever an epoch has."""
        return self.steps

    def __str__(self) -> str:
        return f"{self.steps} steps"


@dataclass(frozen=True)
class Epochs:
    """A number of passes over the training videos: ``Epochs(20)``."""

    epochs: Rate
    """Number of passes over the training videos; ``--train.steps`` sets the length in optimiser steps instead. An
    existing run can be extended, with the learning rates of a run of the new length."""

    def total(self, steps_per_epoch: float) -> int:
        """The number of steps, the last one begun included."""
        return math.ceil(self.epochs * steps_per_epoch)

    def __str__(self) -> str:
        return f"{self.epochs:g} epochs"


def _read_span(words: list[str]) -> float | Steps:
    (word,) = words
    if word.isdecimal() and int(word) > 0:
        return Steps(int(word))
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"expected a share of all steps such as 0.05, or a number of steps, got {word!r}") from None


Span = Annotated[
    Share | Steps,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="SHARE|STEPS",
        instance_from_str=_read_span,
        is_instance=lambda value: isinstance(value, (float, int, Steps)),
        str_from_instance=lambda value: [str(value.steps if isinstance(value, Steps) else float(value))],
    ),
]
"""A part of training: a share of its steps (``0.05``), or ``Steps(2000)``, on the command line ``2000``."""


def span_steps(span: float | Steps, total: int) -> int:
    """The number of steps of a part of a run of ``total`` steps."""
    return span.steps if isinstance(span, Steps) else round(span * total)
