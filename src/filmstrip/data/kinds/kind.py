"""The base class of kinds of samples, and the rows that they produce."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from filmstrip.data.kinds.specification import Specification
from filmstrip.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from filmstrip.data.config import Data, DataInfo
    from filmstrip.data.sample import Source
    from filmstrip.protocols import Batch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a batch: a clip or view of a sample."""

    content: dict[str, Tensor]
    times: tuple[float, float]
    """Times of the first and last frame, in seconds."""
    damaged: tuple[bool, ...] = ()
    """Whether each used frame is damaged."""
    truncated: str = ""
    """Description of a premature end of the file; empty if there is none."""
    shown: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Part of the file's frames that the clip shows: left, top, right, bottom, as fractions of width and height."""
    numbers: tuple[int, ...] = ()
    """Number of each frame in the file, where a kind of sample asked for it."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of sample with its settings: the base class of ``data.reads``."""

    mixes: ClassVar[bool] = False
    """Whether several sources can be read as a mixture, in fixed ratios."""
    specification: ClassVar[Specification]
    """Specification of the batches."""

    @property
    def text_alone(self) -> bool:
        """Whether samples are text alone, without anything to see."""
        return False

    def open(self, data: Data) -> Source:
        """The collection of samples that ``data`` names.

        Raises:
            UserError: there is nothing to read, or it is not of this kind; the message says what was expected.
        """
        raise TypeError(f"{type(self).__name__} does not define open(data)")

    def as_recorded(self, folder: Path) -> Self:
        """This kind with what a run folder records of it (:meth:`Source.record`), to read other data for that run."""
        return self

    def sizes(self, data: Data, network: Any) -> dict[str, int] | None:
        """Sizes of one sample by the letters of the specification, without ``B``; None if only the data determine
        them.

        ``network`` is the configuration of the objective, which determines the width of features and the number of
        classes before data are available.
        """
        raise TypeError(f"{type(self).__name__} does not define sizes(data, network)")

    def told_sizes(self, data: Data, info: Any) -> dict[str, int]:
        """The same for data that are there, from what objectives are told of them."""
        raise TypeError(f"{type(self).__name__} does not define told_sizes(data, info)")

    @property
    def row_tokens(self) -> int | None:
        """Number of tokens of a row of the language model, where that is a setting."""
        return None

    def with_row_tokens(self, count: int) -> Self:
        """This kind with rows of so many tokens.

        Raises:
            UserError: its samples have no such length.
        """
        raise UserError(f"{type(self).__name__.lower()} have no number of tokens a row that could be set")

    def shown(self, data: Data) -> str:
        """Description of the network's input, for messages."""
        return "the inputs of its data"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> DataInfo:
        """The :class:`DataInfo` of data such as :meth:`example`; ``told`` are the fields common to all kinds."""
        raise TypeError("this kind of sample has no example")

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """A random batch with a learnable relation between its keys, of ``sizes`` as returned by :meth:`sizes`.

        It holds the kind's own keys, and the keys of all kinds that do not depend on the data.
        """
        raise TypeError("this kind of sample has no example")


def check_requires(learner: str, requires: Collection[str], gives: Collection[str], data: str) -> None:
    """Check that batches hold the keys that an objective or evaluation requires.

    Raises:
        UserError: they do not; the message lists the missing keys and the available ones.
    """
    missing = [key for key in requires if key not in gives]
    if missing:
        raise UserError(
            f"{learner} needs {', '.join(map(repr, missing))} in its batches, and {data} provides "
            f"{', '.join(map(repr, sorted(gives)))}: read another kind of data (--data.reads)"
        )
