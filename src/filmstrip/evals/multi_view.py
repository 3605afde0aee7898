"""Multi-view testing: several clips along a video and several crops of each, their class probabilities averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.labels import MEANINGS, scores_of
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import inference
from filmstrip.protocols import Batch, Classifier, Labels
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.runs.predictions import ClipPredictions, Predictions
from filmstrip.runs.target_predictions import NumberPredictions, SeveralPredictions, targets_of


def classifier_of(subject: Subject) -> Classifier:
    """The subject's classifier.

    Raises:
        UserError: the objective is not a classifier.
    """
    if not isinstance(subject.objective, Classifier):
        name = type(subject.objective).__name__
        raise UserError(f"{name} is not a classifier: use a probe (linear_probe, knn) instead")
    return subject.objective


def _numbers_of(data: Sequence[str], model: Sequence[str]) -> list[int]:
    """The number that the model has for each class of the data.

    Raises:
        UserError: the model does not know one of them.
    """
    numbers = {name: i for i, name in enumerate(model)}
    if unknown := [name for name in data if name not in numbers]:
        raise UserError(
            f"the model has no class {unknown[0]!r} of the data ({len(unknown)} of {len(data)} are not known; "
            f"it has {', '.join(model[:3])}, ...): evaluate on data of its classes, or train a head for these"
        )
    return [numbers[name] for name in data]


def _check_labels(subject: Subject) -> None:
    """See that the objective was made for labels such as the data's.

    Raises:
        UserError: it was not.
    """
    if (own := subject.objective.labels) != subject.source.labels:
        raise UserError(
            f"the model was trained on videos with {MEANINGS[own]}, and those of {subject.source.root} have "
            f"{MEANINGS[subject.source.labels]}: give data with labels as in training (--data.reads.labels)"
        )


@dataclass(frozen=True, kw_only=True)
class MultiView(Evaluation):
    """Top-1, top-5 and mean class accuracy over ``num_clips`` x ``num_crops`` views of each test video.

    Of several labels each: mean average precision (mAP). Of numbers: mean absolute error and correlations.
    """

    compares_classes: ClassVar[bool] = True
    takes_labels: ClassVar[tuple[Labels, ...]] = ("class", "several", "number")
    classifies: ClassVar[bool] = True
    tells_clips: ClassVar[bool] = True

    num_clips: Count = 5
    """Number of clips, evenly spaced along the video."""
    num_crops: Count = 3
    """Number of square crops per clip along its longer side; 1 takes the centre."""
    batch_size: Count = 16
    """Maximum number of views per batch."""
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``top1``, ``top5`` (for six classes or more), ``mean_class_accuracy``, ``count``, ``unreadable``; or,
        of other labels, :meth:`SeveralPredictions.metrics` or :meth:`NumberPredictions.metrics`."""
        if subject.source.labels != "class":
            other = self._target_predictions(subject)
            subject.keep(other)
            yield from other.metrics()
            return
        predictions = self.predictions(subject)
        subject.keep(predictions)
        yield "top1", predictions.accuracy()
        if len(predictions.classes) > 5:
            yield "top5", predictions.accuracy(top_k=5)
        yield "mean_class_accuracy", predictions.mean_class_accuracy()
        yield "count", float(len(predictions.names))
        yield "unreadable", float(predictions.unreadable)

    def check(self, subject: Subject) -> None:
        """The objective is a classifier of labels such as the data's."""
        classifier_of(subject)
        _check_labels(subject)

    def predictions(self, subject: Subject) -> Predictions:
        """Classify every video of the split, and tell its single clips apart where the subject asks for that.

        Raises:
            UserError: the objective is not a classifier, its classes are not the data's, its output is not finite, or
                the split has no readable labelled video.
        """
        samples = subject.source.split(self.split or subject.data.eval_split)
        classes = subject.classes or subject.source.classes
        numbers = _numbers_of(subject.source.classes, classes)
        probabilities, evaluated, unreadable, seen = self._scores(subject, len(classes))
        return Predictions(
            names=tuple(samples[i].name for i in evaluated),
            labels=torch.tensor([numbers[label] for i in evaluated if (label := samples[i].label) is not None]),
            probabilities=probabilities[evaluated],
            classes=classes,
            unreadable=unreadable,
            clips=self._clips(seen, evaluated) if subject.per_clip else None,
        )

    def _target_predictions(self, subject: Subject) -> SeveralPredictions | NumberPredictions:
        """The same where labels are several classes or numbers.

        Raises:
            UserError: as :meth:`predictions`; or single clips are asked for.
        """
        if subject.per_clip:
            raise UserError("tables of single clips (--per-clip) are for videos of one class each: leave it out")
        _check_labels(subject)
        samples = subject.source.split(self.split or subject.data.eval_split)
        classes = subject.classes or subject.source.classes
        several = subject.source.labels == "several"
        numbers = _numbers_of(subject.source.classes, classes) if several else None
        scores, evaluated, unreadable, _ = self._scores(subject, len(classes))
        labels = targets_of([samples[i].target for i in evaluated], numbers, len(classes))
        names = tuple(samples[i].name for i in evaluated)
        kind = SeveralPredictions if several else NumberPredictions
        return kind(names, labels, scores[evaluated], classes, unreadable)

    def _scores(
        self, subject: Subject, count: int
    ) -> tuple[Tensor, list[int], int, list[tuple[Tensor, Tensor, Tensor]]]:
        """Scores of every video of the split averaged over its views, ``N K``; the labelled ones that could be read;
        how many could not; and index, scores and spans of the views of each batch, if single clips are asked for.

        Raises:
            UserError: as :meth:`predictions`.
        """
        classifier = classifier_of(subject)
        split = self.split or subject.data.eval_split
        samples = subject.source.split(split)
        # Accumulated on the CPU: on a GPU the order of additions, and so the rounding, varies.
        sums, views = torch.zeros(len(samples), count), torch.zeros(len(samples))
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        loader = EvalLoader(
            subject.source,
            subject.data,
            split,
            num_clips=self.num_clips,
            num_crops=self.num_crops,
            batch_size=self.batch_size,
        )

        def classify(batch: Batch, before: int) -> tuple[Tensor, Tensor, Tensor]:
            with inference(subject.objective):
                logits = classifier.classify(batch["video"].to(subject.device, non_blocking=True))
                if logits.shape[1] != count:
                    raise UserError(f"the model has {logits.shape[1]} classes, but the data has {count}")
                spans = batch["span"] if subject.per_clip else torch.zeros(0, 2)
                return batch["index"], scores_of(logits.float(), subject.source.labels).cpu(), spans

        for index, scores, spans in map_batches(subject, loader, classify):
            sums.index_add_(0, index, scores)
            views.index_add_(0, index, torch.ones(len(scores)))
            if subject.per_clip:
                seen.append((index, scores, spans))
        probabilities = sums / views[:, None]
        evaluated = [i for i, seen_views in enumerate(views.tolist()) if seen_views and samples[i].is_labelled]
        if not evaluated:
            raise UserError(f"no video of the split {split!r} is both labelled and readable: nothing to evaluate")
        if not probabilities[evaluated].isfinite().all():
            raise UserError("the model's logits are not finite: its training diverged")
        return probabilities, evaluated, int((views == 0).sum()), seen

    def _clips(self, seen: Sequence[tuple[Tensor, Tensor, Tensor]], evaluated: Sequence[int]) -> ClipPredictions:
        """Single clips of the videos that are ``evaluated``, from the views of all batches in their order."""
        index, scores, spans = (torch.cat(parts).unflatten(0, (-1, self.num_crops)) for parts in zip(*seen))
        place = {video: i for i, video in enumerate(evaluated)}
        kept = [i for i, video in enumerate(index[:, 0].tolist()) if video in place]
        videos = torch.tensor([place[video] for video in index[kept, 0].tolist()])
        return ClipPredictions(videos, spans[kept, 0], scores[kept].mean(dim=1))
