"""Spatiotemporal action detection: mean average precision over classes, in key frames and over tubes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count, Share
from filmstrip.data.annotations.ava import write_scores
from filmstrip.data.boxes import iou
from filmstrip.data.detection.tubes import link
from filmstrip.data.detection.types import Actor, Moment
from filmstrip.data.kinds.actors import ActorClips, ActorSample, ActorSource
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.distributed import process
from filmstrip.errors import UserError
from filmstrip.evals.average_precision import area_under_precision
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import inference
from filmstrip.protocols import Batch, Detector
from filmstrip.runs.evaluation import Evaluation, Subject

TRACK = dict[float, Tensor]
"""A track: a box (``4``) by its time in the video, seconds."""


class Scored(NamedTuple):
    """Boxes and class scores of one key frame."""

    boxes: Tensor
    """Input boxes, ``N 4``."""
    scores: Tensor
    """Class scores, ``N K``; minus infinity for classes without a prediction."""


@dataclass(frozen=True, kw_only=True)
class DetectionMAP(Evaluation):
    """Mean average precision in key frames, as in the public evaluations of AVA, and over tubes.

    Those differ: SlowFast's code base, which its released figures come from, evaluates every row (a box and a class),
    as we do by default; the ActivityNet challenges evaluate the 50 rows of maximum score in a key frame
    (``max_rows``).

    Boxes are the annotated ones, an easier task, or a detector's (``proposals``); every box is scored for every
    class. Excluded and unreadable key frames are not counted; key frames without proposals are, and so are boxes in
    key frames without annotation. The mean is over the evaluated classes that occur.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "boxes"})

    threshold: Share = 0.5
    """Minimum intersection over union with an annotated box."""
    max_rows: Count | None = None
    """Maximum number of rows per key frame, those of maximum score among evaluated classes; not applied to tubes."""
    video_thresholds: tuple[Share, ...] = ()
    """Minimum intersection over union with a ground-truth tube, the boxes of one person during one action. Predicted
    tubes are boxes linked through a video. Needs person ids in the annotations."""
    proposals: Path | None = None
    """Table of a detector's boxes; by default the data's ``detection.proposals``, or the annotated boxes."""
    batch_size: Count = 8
    """Maximum number of key frames per batch, all of one video: frames are not cropped, and sizes differ by video."""
    split: str | None = None
    """By default the data's ``eval_split``."""
    out: Path | None = None
    """Output file for the scores of all boxes, a table that AVA's public evaluation reads."""

    def check(self, subject: Subject) -> None:
        """The objective classifies boxes, the data have boxes, and the proposals exist."""
        if not isinstance(subject.objective, Detector):
            name = type(subject.objective).__name__
            raise UserError(f"{name} does not classify boxes: this evaluation needs a run of detection.*")
        if not isinstance(subject.source, ActorSource):
            raise UserError(f"{subject.source.root} holds no key frames with boxes: read such data (--data.reads)")
        if self.proposals is not None and not self.proposals.is_file():
            raise UserError(f"{self.proposals} is not a file: expected a table of a detector's boxes")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``mAP@THRESHOLD``, ``video_mAP@THRESHOLD`` for each, and ``count``, the number of key frames.

        Raises:
            UserError: the objective does not classify boxes, the data have none, no key frame is readable, or
                ``out`` cannot be written.
        """
        self.check(subject)
        detector, source, data = subject.objective, subject.source, subject.data
        if self.proposals is not None:
            assert isinstance(data.reads, ActorClips), "checked above: the source is of actors"
            data = replace(data, reads=replace(data.reads, proposals=self.proposals))
            source = data.reads.open(data)
        assert isinstance(detector, Detector) and isinstance(source, ActorSource), "checked above"
        split = self.split or data.eval_split

        def evaluate_batch(batch: Batch, before: int) -> list[tuple[int, Tensor]]:
            video, boxes = (batch[key].to(subject.device, non_blocking=True) for key in ("video", "boxes"))
            with inference(detector):
                batch_scores = detector.detect(video, boxes).cpu()
            rows = zip(batch["index"].tolist(), batch_scores, batch["is_actor"])
            return [(index, scores[there]) for index, scores, there in rows]

        batches = EvalLoader(source, data, split, batch_size=self.batch_size, by_file=True)
        scores = dict(pair for part in map_batches(subject, batches, evaluate_batch) for pair in part)
        if not scores:
            raise UserError(f"no key frame of the split {split!r} is readable: nothing to evaluate")
        samples = [sample for sample in source.split(split) if isinstance(sample, ActorSample)]
        found = {samples[i].key: Scored(_boxes(samples[i].actors), scores[i]) for i in sorted(scores)}
        if self.out is not None and process.rank() == 0:
            table = ((key, scored.boxes.tolist(), scored.scores.tolist()) for key, scored in found.items())
            write_scores(self.out, table, source.numbers)
        unreadable = {sample.key for i, sample in enumerate(samples) if i not in scores}
        truth = {key: actors for key, actors in source.truth[split].items() if key not in unreadable}
        counted = found
        if self.max_rows is not None:
            counted = {key: top_rows(scored, self.max_rows, source.evaluated) for key, scored in found.items()}
        precision = frame_precision(truth, counted, len(source.classes), self.threshold)
        yield f"mAP@{self.threshold:g}", _mean(precision, source.evaluated)
        for threshold in self.video_thresholds:
            precision = video_precision(truth, found, len(source.classes), threshold)
            yield f"video_mAP@{threshold:g}", _mean(precision, source.evaluated)
        yield "count", float(len(found))


def top_rows(scored: Scored, count: int, evaluated: frozenset[int]) -> Scored:
    """The ``count`` rows (a box and an evaluated class) of maximum score in a key frame; others become minus
    infinity."""
    scores = torch.full_like(scored.scores, -torch.inf)
    kinds = torch.tensor(sorted(evaluated), dtype=torch.long)
    rows = scored.scores[:, kinds].flatten()
    best = rows.sort(descending=True, stable=True).indices[:count]
    box, kind = best // max(len(kinds), 1), kinds[best % max(len(kinds), 1)]
    scores[box, kind] = rows[best]
    return Scored(scored.boxes, scores)


def frame_precision(
    truth: Mapping[Moment, Sequence[Actor]], found: Mapping[Moment, Scored], num_classes: int, threshold: float
) -> np.ndarray:
    """The average precision of each class (``K``) over key frames, NaN for classes that do not occur."""
    classes = _Classes(num_classes, threshold)
    for key in {**truth, **found}:
        actors = truth.get(key, ())
        labels = np.zeros((len(actors), num_classes), dtype=bool)
        for row, actor in zip(labels, actors):
            row[list(actor.classes)] = True
        boxes, scores = found.get(key, Scored(torch.zeros(0, 4), torch.zeros(0, num_classes)))
        classes.add(scores.numpy(), iou(boxes.double(), _boxes(actors)).numpy(), labels)
    return classes.precision()


def video_precision(
    truth: Mapping[Moment, Sequence[Actor]], found: Mapping[Moment, Scored], num_classes: int, threshold: float
) -> np.ndarray:
    """The average precision of each class (``K``) over tubes, NaN for classes that do not occur.

    Predicted tubes link a video's boxes (:func:`~filmstrip.data.detection.tubes.link`), with the mean of their
    scores; a ground-truth tube holds the key frames in which one person performs one action. For the overlap of two,
    see :func:`track_iou`.

    Raises:
        UserError: an actor has no person id.
    """
    true: dict[str, dict[tuple[int, int], TRACK]] = defaultdict(lambda: defaultdict(dict))
    given: dict[str, dict[float, Scored]] = defaultdict(dict)
    for (video, second), actors in truth.items():
        for actor in actors:
            if actor.person is None:
                raise UserError(
                    f"the annotations do not say which person acts in {video} at {second:g} s: "
                    "leave video_thresholds empty"
                )
            for kind in actor.classes:
                true[video][actor.person, kind][second] = torch.tensor(actor.box, dtype=torch.float64)
    for (video, second), scored in found.items():
        given[video][second] = scored
    classes = _Classes(num_classes, threshold)
    for video in {**true, **given}:
        keys = given[video]
        tubes = link({second: scored.boxes.double() for second, scored in keys.items()})
        tracks = [{s: keys[s].boxes[p].double() for s, p in zip(tube.seconds, tube.places)} for tube in tubes]
        scores = [
            torch.stack([keys[s].scores[p] for s, p in zip(tube.seconds, tube.places)]).mean(dim=0) for tube in tubes
        ]
        kinds = [kind for _, kind in true[video]]
        overlap = [[track_iou(track, other) for other in true[video].values()] for track in tracks]
        classes.add(
            np.array([row.numpy() for row in scores], dtype=np.float64).reshape(len(tubes), num_classes),
            np.array(overlap, dtype=np.float64).reshape(len(tubes), len(kinds)),
            np.eye(num_classes, dtype=bool)[kinds],
        )
    return classes.precision()


def track_iou(one: TRACK, other: TRACK) -> float:
    """Overlap of two tubes: temporal intersection over union in key frames, times the mean box overlap in common
    ones."""
    common = one.keys() & other.keys()
    if not common:
        return 0.0
    overlap = [float(iou(one[second][None], other[second][None])) for second in common]
    return len(common) / len(one.keys() | other.keys()) * float(np.mean(overlap))


class _Classes:
    """Collects true and false positives, per class."""

    def __init__(self, num_classes: int, threshold: float) -> None:
        self.threshold = threshold
        self.total = np.zeros(num_classes, dtype=np.int64)
        self._scores: list[np.ndarray] = [np.zeros((0, num_classes))]
        self._hits: list[np.ndarray] = [np.zeros((0, num_classes), dtype=bool)]

    def add(self, scores: np.ndarray, overlap: np.ndarray, labels: np.ndarray) -> None:
        """Add one key frame or video: scores ``N K``, overlaps ``N M`` with ground truth of classes ``M K``.

        In descending order of score, a prediction is a true positive if the instance of its class with maximum
        overlap is not matched yet.
        """
        hits = np.zeros(scores.shape, dtype=bool)
        for kind in np.flatnonzero(labels.any(axis=0)):
            own = overlap[:, labels[:, kind]]
            nearest = own.argmax(axis=1)
            taken = set()
            for i in np.argsort(-scores[:, kind], kind="stable"):
                if scores[i, kind] == -np.inf:
                    break
                if own[i, nearest[i]] >= self.threshold and nearest[i] not in taken:
                    taken.add(nearest[i])
                    hits[i, kind] = True
        self.total += labels.sum(axis=0)
        self._scores.append(scores)
        self._hits.append(hits)

    def precision(self) -> np.ndarray:
        """The average precision of each class."""
        scores, hits = np.concatenate(self._scores), np.concatenate(self._hits)
        values = np.full(len(self.total), np.nan)
        for kind in np.flatnonzero(self.total):
            order = np.argsort(-scores[:, kind], kind="stable")
            order = order[scores[order, kind] > -np.inf]
            values[kind] = area_under_precision(hits[order, kind], int(self.total[kind]))
        return values


def _mean(precision: np.ndarray, evaluated: frozenset[int]) -> float:
    """Mean over the evaluated classes that occur; zero if none does."""
    known = [precision[kind] for kind in sorted(evaluated) if not np.isnan(precision[kind])]
    return float(np.mean(known)) if known else 0.0


def _boxes(actors: Sequence[Actor]) -> Tensor:
    return torch.tensor([actor.box for actor in actors], dtype=torch.float64).view(-1, 4)
