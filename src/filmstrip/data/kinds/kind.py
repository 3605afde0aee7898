"""What every kind of sample says of itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
    """What a batch takes from one reading of a sample: its own row of the keys that are tensors."""

    content: dict[str, Tensor]
    times: tuple[float, float]
    """Of its first and last frame, seconds."""
    damaged: tuple[bool, ...] = ()
    """Of each frame that was used, whether it is damaged."""
    truncated: str = ""
    """How the file ends too early, where it does."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of sample, and which of its samples are read: the base of every ``data.reads``."""

    specification: ClassVar[Specification]
    """What its batches hold."""

    def open(self, data: Data) -> Source:
        """The collection of samples that ``data`` names.

        Raises:
            UserError: there is nothing to read, or it is not of this kind; says what was expected.
        """
        raise TypeError(f"{type(self).__name__} does not define open(data)")

    def sizes(self, data: Data, network: Any) -> dict[str, int] | None:
        """The sizes of one sample, by the letters of the specification, ``B`` left out; none where data say them.

        ``network`` is the configuration of what learns from it, which says how wide features are, and how many
        classes there are, before data are there.
        """
        raise TypeError(f"{type(self).__name__} does not define sizes(data, network)")

    def shown(self, data: Data) -> str:
        """What networks are given, in words, for messages."""
        return "what its data give"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> DataInfo:
        """What objectives are told of data such as :meth:`example`; ``told`` are the fields of every kind's."""
        raise TypeError("this kind of sample has no drawn example")

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """A batch drawn from a generator, from which something can be learnt, of ``sizes`` as :meth:`sizes` has them.

        It holds the kind's own keys, and of those of every kind what the data do not decide.
        """
        raise TypeError("this kind of sample has no drawn example")


def check_requires(learner: str, requires: Collection[str], gives: Collection[str], data: str) -> None:
    """See that batches hold what a learner reads of them.

    Raises:
        UserError: they do not; names what is missing, and what there is.
    """
    missing = [key for key in requires if key not in gives]
    if missing:
        raise UserError(
            f"{learner} needs {', '.join(map(repr, missing))} in its batches, and {data} gives "
            f"{', '.join(map(repr, sorted(gives)))}: read another kind of data (--data.reads)"
        )
