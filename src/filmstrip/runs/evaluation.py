"""What every protocol of evaluation is: a run lists them by this class, and the protocols themselves are above it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from filmstrip.bounds import check_numbers
from filmstrip.data.labels import MEANINGS
from filmstrip.distributed.mesh import Mesh
from filmstrip.protocols import Labels

if TYPE_CHECKING:
    import torch

    from filmstrip.data.config import Data
    from filmstrip.data.sources import Source
    from filmstrip.protocols import Objective
    from filmstrip.runs.predictions import Predictions
    from filmstrip.runs.target_predictions import NumberPredictions, SeveralPredictions

    AnyPredictions = Predictions | SeveralPredictions | NumberPredictions


def _forget(predictions: AnyPredictions) -> None:
    """Where nobody keeps predictions."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The subject of an evaluation: a trained objective, and the data it was trained on."""

    objective: Objective
    source: Source
    data: Data
    device: torch.device
    mesh: Mesh = field(default_factory=Mesh.of_processes)
    """How the processes share the batches."""
    classes: tuple[str, ...] = ()
    """Names of the classes of the objective's logits, where they may be others than the data's."""
    keep: Callable[[AnyPredictions], None] = _forget
    """What is done with the predictions of a protocol that classifies."""
    per_clip: bool = False
    """Whether those are to tell single clips apart."""
    name: str = ""
    """Name of what is evaluated, where results of several are kept together: the run folder's, or the method's by
    which the run's network is used."""
    run: str = ""
    """Run folder; empty of what is evaluated in memory or comes from the Hub."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A protocol and its settings."""

    requires: ClassVar[frozenset[str]] = frozenset({"video"})
    """Batch keys that the protocol needs; encoded videos come without ``video``."""
    compares_classes: ClassVar[bool] = False
    """Whether the protocol compares classes, and so needs labelled videos of at least two classes."""
    takes_labels: ClassVar[tuple[Labels, ...]] = ("class",)
    """The labels that the protocol takes, if it compares classes."""
    takes_native: ClassVar[bool] = False
    """Whether the protocol takes frames of several sizes in a batch (``data.clip.native``)."""
    classifies: ClassVar[bool] = False
    """Whether the protocol predicts a class of each file, and hands its predictions to ``Subject.keep``."""
    tells_clips: ClassVar[bool] = False
    """Whether it can tell the single clips of a file apart."""
    uses_training_split: ClassVar[bool] = False
    """Whether the protocol reads the training split too, to fit or count."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``(name, value)`` pairs as they become known."""
        raise TypeError(f"{type(self).__name__} does not define __call__(subject)")

    def own_source(self, data: Data) -> Source | None:
        """The collection that the protocol reads where it has a layout of its own; by default none: it reads that of
        ``data``, as others do.

        Raises:
            UserError: there is nothing to read in its layout.
        """
        return None

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """The splits that the protocol reads."""
        own = getattr(self, "split", None) or data.eval_split
        return (data.train_split, own) if self.uses_training_split else (own,)

    def lacking(self, source: Source, data: Data) -> str | None:
        """A sentence on what the protocol needs and the data lack; none if nothing is missing.

        Raises:
            UserError: a split does not exist.
        """
        name = type(self).__name__
        if missing := self.requires - source.gives:
            return f"{name} needs {', '.join(sorted(missing))}, which {source.root} does not hold"
        if data.clip.native is not None and not self.takes_native:
            return f"{name} needs frames of one size, and data.clip.native gives each clip its own"
        for split in self.splits_of(data):
            samples = source.split(split)
            if self.compares_classes and not any(sample.is_labelled for sample in samples):
                return f"{name} needs labels, and no video of the split {split!r} of {source.root} has one"
        if self.compares_classes and source.labels not in self.takes_labels:
            return (
                f"{name} compares videos of one class each, and those of {source.root} have {MEANINGS[source.labels]}"
            )
        if self.compares_classes and source.labels == "class" and len(source.classes) < 2:
            return f"{name} compares classes, and {source.root} has one: {', '.join(source.classes)}"
        return None

    def check(self, subject: Subject) -> None:
        """Check, before anything expensive, that the protocol can evaluate the objective with these settings.

        Raises:
            UserError: it cannot; the message says what is needed.
        """
