"""Multi-view testing: several clips along a video and several crops of each, their class probabilities averaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.reading.loader import eval_batches
from filmstrip.errors import UserError
from filmstrip.evals import Evaluation, Subject
from filmstrip.evals.shared import looked_at
from filmstrip.inference import inference
from filmstrip.protocols import Batch, Classifier


def classifier_of(subject: Subject) -> Classifier:
    """The classifier that a protocol looks at.

    Raises:
        UserError: the objective is none.
    """
    if not isinstance(subject.objective, Classifier):
        name = type(subject.objective).__name__
        raise UserError(f"{name} is no classifier: use a probe (linear_probe, knn) instead")
    return subject.objective


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of each readable video of a split."""

    names: tuple[str, ...]
    labels: Tensor
    """``N`` int64."""
    probabilities: Tensor
    """``N K``, the mean over views of the softmax."""
    classes: tuple[str, ...]
    unreadable: int
    """Videos of the split that could not be read; they are in none of the figures."""

    def confusion(self) -> Tensor:
        """``K K`` counts: row is the true class, column the predicted one."""
        # Importing torchmetrics imports all of it, with transformers and scipy where they are installed.
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.probabilities, self.labels, num_classes=len(self.classes))

    def accuracy(self, top_k: int = 1) -> float:
        """Share of videos whose class is among the ``top_k`` most probable."""
        from torchmetrics.functional.classification import multiclass_accuracy

        num_classes = len(self.classes)
        return float(multiclass_accuracy(self.probabilities, self.labels, num_classes, average="micro", top_k=top_k))

    def mean_class_accuracy(self) -> float:
        """Accuracy within each class, averaged over the classes that the split has videos of."""
        confusion = self.confusion().double()
        videos = confusion.sum(dim=1)
        return float((confusion.diag() / videos)[videos > 0].mean())


@dataclass(frozen=True, kw_only=True)
class MultiView(Evaluation):
    """Top-1, top-5 and mean class accuracy over ``num_clips`` x ``num_crops`` views of each test video."""

    compares_classes: ClassVar[bool] = True

    num_clips: Count = 5
    """Clips, evenly spaced along the video."""
    num_crops: Count = 3
    """Square crops of each clip along its longer side; 1 takes the centre."""
    batch_size: Count = 16
    """Views classified at once."""
    split: str | None = None
    """By default the data's ``eval_split``."""

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``top1``, ``top5`` (for six classes or more), ``mean_class_accuracy``, ``count``, ``unreadable``."""
        predictions = self.predictions(subject)
        yield "top1", predictions.accuracy()
        if len(predictions.classes) > 5:
            yield "top5", predictions.accuracy(top_k=5)
        yield "mean_class_accuracy", predictions.mean_class_accuracy()
        yield "count", float(len(predictions.names))
        yield "unreadable", float(predictions.unreadable)

    def check(self, subject: Subject) -> None:
        """The objective is a classifier."""
        classifier_of(subject)

    def predictions(self, subject: Subject) -> Predictions:
        """Classify every video of the split.

        Raises:
            UserError: the objective is no classifier, its classes are not the data's, its output is not finite, or
                the split has no readable labelled video.
        """
        classifier = classifier_of(subject)
        split = self.split or subject.data.eval_split
        samples = subject.source.split(split)
        classes = subject.source.classes
        # Added up on the CPU: a GPU adds rows of one video in any order, and rounds differently each time.
        sums, views = torch.zeros(len(samples), len(classes)), torch.zeros(len(samples))
        loader = eval_batches(
            subject.source,
            subject.data,
            split,
            num_clips=self.num_clips,
            num_crops=self.num_crops,
            batch_size=self.batch_size,
        )

        def look(batch: Batch, before: int) -> tuple[Tensor, Tensor]:
            with inference(classifier):
                logits = classifier.classify(batch["video"].to(subject.device, non_blocking=True))
                if logits.shape[1] != len(classes):
                    raise UserError(f"the model knows {logits.shape[1]} classes, but the data has {len(classes)}")
                return batch["index"], logits.float().softmax(dim=1).cpu()

        for index, said in looked_at(subject, loader, look):
            sums.index_add_(0, index, said)
            views.index_add_(0, index, torch.ones(len(said)))
        probabilities = sums / views[:, None]
        seen = [i for i, count in enumerate(views.tolist()) if count and samples[i].label is not None]
        if not seen:
            raise UserError(f"no video of the split {split!r} is both labelled and readable: nothing to evaluate")
        if not probabilities[seen].isfinite().all():
            raise UserError("the model's logits are not finite: its training diverged")
        return Predictions(
            names=tuple(samples[i].name for i in seen),
            labels=torch.tensor([samples[i].label for i in seen]),
            probabilities=probabilities[seen],
            classes=classes,
            unreadable=int((views == 0).sum()),
        )
