"""How well it is told who does what, and where: mean average precision over classes, in key frames and along
tubes."""

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
from filmstrip.data.kinds.actors import ActorSource
from filmstrip.data.reading.loader import eval_batches
from filmstrip.distributed import process
from filmstrip.errors import UserError
from filmstrip.evals import Evaluation, Subject
from filmstrip.evals.precision import area_under_precision
from filmstrip.evals.shared import looked_at
from filmstrip.inference import inference
from filmstrip.protocols import Batch, Detector

TRACK = dict[float, Tensor]
"""A box (``4``) for each of some seconds of a video."""


class Scored(NamedTuple):
    """What was said of one key frame."""

    boxes: Tensor
    """``N 4``, those that were given."""
    scores: Tensor
    """``N K``; minus infinity where nothing is said of a class."""


@dataclass(frozen=True, kw_only=True)
class DetectionMAP(Evaluation):
    """Mean average precision in key frames as the public evaluations of AVA compute it, and over tubes.

    Those differ: the SlowFast code base's, with which the released figures of its models were made, reads every row
    (a box and a class), as we do by default; that of the ActivityNet challenges reads the 50 surest rows of a key
    frame (``most_rows``).

    Boxes are the annotated ones, which makes it easier, or those of a detector (``proposals``). Every box counts
    for every class. Excluded key frames do not count, and neither do those that cannot be read; key frames for which
    there were no boxes do, and so do boxes where nobody is annotated. Classes are those that the set evaluates and of
    which there are any.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "boxes"})

    threshold: Share = 0.5
    """Least intersection over union with an annotated box."""
    most_rows: Count | None = None
    """Most rows of a key frame that count, the surest ones of the evaluated classes; not over tubes."""
    video_thresholds: tuple[Share, ...] = ()
    """The same for tubes: boxes are linked through a video, and the annotated ones of a person who does something are
    a tube. Needs persons in the annotations."""
    proposals: Path | None = None
    """A detector's boxes to look at; by default the data's ``detection.proposals``, or the annotated ones."""
    batch_size: Count = 8
    """Key frames at once, at most: they are of one video, since frames are whole and videos have sizes of their
    own."""
    split: str | None = None
    """By default the data's ``eval_split``."""
    out: Path | None = None
    """Where to write what was said of every box, as a table that AVA's public evaluation reads."""

    def check(self, subject: Subject) -> None:
        """The objective looks at boxes, the data have them, and what is named can be read and written."""
        if not isinstance(subject.objective, Detector):
            name = type(subject.objective).__name__
            raise UserError(f"{name} says nothing of boxes: this evaluation needs detection.*")
        if not isinstance(subject.source, ActorSource):
            raise UserError(f"{subject.source.root} holds no key frames with boxes: read such data (--data.reads)")
        if self.proposals is not None and not self.proposals.is_file():
            raise UserError(f"{self.proposals} is no file: proposals are a table of a detector's boxes")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``mAP@THRESHOLD``, ``video_mAP@THRESHOLD`` for each, and ``count``, the key frames looked at.

        Raises:
            UserError: the objective says nothing of boxes, the data have none, no key frame is readable, or
                ``out`` cannot be written.
        """
        self.check(subject)
        detector, source, data = subject.objective, subject.source, subject.data
        if self.proposals is not None:
            data = replace(data, reads=replace(data.reads, proposals=self.proposals))
            source = data.reads.open(data)
        split = self.split or data.eval_split

        def look(batch: Batch, before: int) -> list[tuple[int, Tensor]]:
            video, boxes = (batch[key].to(subject.device, non_blocking=True) for key in ("video", "boxes"))
            with inference(detector):
                said = detector.detect(video, boxes).cpu()
            rows = zip(batch["index"].tolist(), said, batch["is_actor"])
            return [(index, scores[there]) for index, scores, there in rows]

        batches = eval_batches(source, data, split, batch_size=self.batch_size, by_file=True)
        scores = dict(pair for part in looked_at(subject, batches, look) for pair in part)
        if not scores:
            raise UserError(f"no key frame of the split {split!r} is readable: nothing to evaluate")
        samples = source.split(split)
        found = {samples[i].key: Scored(_boxes(samples[i].actors), scores[i]) for i in sorted(scores)}
        if self.out is not None and process.rank() == 0:
            said = ((key, scored.boxes.tolist(), scored.scores.tolist()) for key, scored in found.items())
            write_scores(self.out, said, source.numbers)
        unreadable = {sample.key for i, sample in enumerate(samples) if i not in scores}
        truth = {key: actors for key, actors in source.truth[split].items() if key not in unreadable}
        counted = found
        if self.most_rows is not None:
            counted = {key: surest(scored, self.most_rows, source.evaluated) for key, scored in found.items()}
        precision = frame_precision(truth, counted, len(source.classes), self.threshold)
        yield f"mAP@{self.threshold:g}", _mean(precision, source.evaluated)
        for threshold in self.video_thresholds:
            precision = video_precision(truth, found, len(source.classes), threshold)
            yield f"video_mAP@{threshold:g}", _mean(precision, source.evaluated)
        yield "count", float(len(found))


def surest(scored: Scored, most: int, evaluated: frozenset[int]) -> Scored:
    """The ``most`` surest rows of a key frame, a box and an evaluated class each; nothing is said of the others."""
    scores = torch.full_like(scored.scores, -torch.inf)
    kinds = torch.tensor(sorted(evaluated), dtype=torch.long)
    rows = scored.scores[:, kinds].flatten()
    best = rows.sort(descending=True, stable=True).indices[:most]
    box, kind = best // max(len(kinds), 1), kinds[best % max(len(kinds), 1)]
    scores[box, kind] = rows[best]
    return Scored(scored.boxes, scores)


def frame_precision(
    truth: Mapping[Moment, Sequence[Actor]], found: Mapping[Moment, Scored], num_classes: int, threshold: float
) -> np.ndarray:
    """The average precision of each class (``K``) over key frames, NaN where nobody does it."""
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
    """The average precision of each class (``K``) over tubes, NaN where nobody does it.

    A found tube is what :func:`~filmstrip.data.detection.tubes.link` makes of a video's boxes, with the mean of their
    scores; a true one holds the key frames in which one person does one thing. They overlap by the share of their
    key frames that they have in common, times the mean overlap of the boxes in those.

    Raises:
        UserError: an actor has no person.
    """
    true: dict[str, dict[tuple[int, int], TRACK]] = defaultdict(lambda: defaultdict(dict))
    given: dict[str, dict[float, Scored]] = defaultdict(dict)
    for (video, second), actors in truth.items():
        for actor in actors:
            if actor.person is None:
                raise UserError(f"nobody says which person acts in {video} at {second:g} s: set no video_thresholds")
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
    """How much two tubes share: their common key frames' share of all, times the mean overlap in those."""
    common = one.keys() & other.keys()
    if not common:
        return 0.0
    overlap = [float(iou(one[second][None], other[second][None])) for second in common]
    return len(common) / len(one.keys() | other.keys()) * float(np.mean(overlap))


class _Classes:
    """Collects which predictions are right, for each class on its own."""

    def __init__(self, num_classes: int, threshold: float) -> None:
        self.threshold = threshold
        self.total = np.zeros(num_classes, dtype=np.int64)
        self._scores: list[np.ndarray] = [np.zeros((0, num_classes))]
        self._hits: list[np.ndarray] = [np.zeros((0, num_classes), dtype=bool)]

    def add(self, scores: np.ndarray, overlap: np.ndarray, labels: np.ndarray) -> None:
        """Take in one key frame or video: scores ``N K``, overlaps ``N M`` with what is true, and its classes ``M
        K``.

        From the surest on, a prediction is right if what it overlaps most, of its class, was not found before.
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
    """Over those of the evaluated classes that there are; zero where there are none."""
    known = [precision[kind] for kind in sorted(evaluated) if not np.isnan(precision[kind])]
    return float(np.mean(known)) if known else 0.0


def _boxes(actors: Sequence[Actor]) -> Tensor:
    return torch.tensor([actor.box for actor in actors], dtype=torch.float64).view(-1, 4)
