"""Temporal action localisation: mean average precision over classes, at thresholds of temporal overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import NotEmpty, Share
from filmstrip.data.kinds.untrimmed import UntrimmedSample, UntrimmedSource
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.errors import UserError
from filmstrip.evals.average_precision import area_under_precision
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import inference, on_device
from filmstrip.nn.segments import iou
from filmstrip.protocols import Batch, Detections, Localiser
from filmstrip.runs.evaluation import Evaluation, Subject

THUMOS14 = (0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True, kw_only=True)
class LocalisationMAP(Evaluation):
    """Mean average precision as in the public evaluation of ActivityNet, which papers on THUMOS14 use too."""

    requires: ClassVar[frozenset[str]] = frozenset({"sequence", "length", "timing", "seconds"})

    thresholds: Annotated[tuple[Share, ...], NotEmpty] = THUMOS14
    """Minimum intersection over union of a true positive; ActivityNet uses 0.5 to 0.95 in steps of 0.05."""
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective localises actions, and the data are untrimmed videos."""
        if not isinstance(subject.objective, Localiser):
            name = type(subject.objective).__name__
            raise UserError(f"{name} does not localise actions: this evaluation needs a run of localisation.*")
        if not isinstance(subject.source, UntrimmedSource):
            raise UserError(f"{subject.source.root} holds no untrimmed videos: read such data (--data.reads)")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``mAP@THRESHOLD`` for each threshold, ``mAP``, their mean, and ``count``, the number of videos.

        Raises:
            UserError: the objective does not localise, the data are not untrimmed videos, or none is readable.
        """
        self.check(subject)
        localiser, source = subject.objective, subject.source
        assert isinstance(localiser, Localiser), "checked above"
        split = self.split or subject.data.eval_split

        def localise(batch: Batch, before: int) -> list[tuple[int, Detections]]:
            with inference(localiser):
                found = localiser.localise(on_device(batch, subject.device))
            return list(zip(batch["index"].tolist(), found))

        # Whole videos differ in length: one at a time.
        batches = EvalLoader(source, subject.data, split, batch_size=1)
        found = dict(pair for part in map_batches(subject, batches, localise) for pair in part)
        if not found:
            raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")
        videos = [sample.video for sample in source.split(split) if isinstance(sample, UntrimmedSample)]
        truth = [
            [(step.step, step.start, step.end) for step in video.steps] if i in found else []
            for i, video in enumerate(videos)
        ]
        precision = mean_average_precision(truth, found, self.thresholds)
        yield from ((f"mAP@{threshold:g}", value) for threshold, value in zip(self.thresholds, precision))
        yield "mAP", float(np.mean(precision))
        yield "count", float(len(found))


def mean_average_precision(
    truth: Sequence[Sequence[tuple[int, float, float]]], found: dict[int, Detections], thresholds: Sequence[float]
) -> list[float]:
    """Mean average precision over the classes that occur in ``truth``, for each threshold.

    ``truth`` lists the actions of each video as (class, start, end), seconds; ``found`` the detections by video
    index.
    """
    actions: dict[int, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for video, done in enumerate(truth):
        for kind, start, end in done:
            actions[kind][video].append((start, end))
    rows = []
    for kind, of_video in actions.items():
        true = {video: torch.tensor(done, dtype=torch.float64) for video, done in of_video.items()}
        predictions = [
            (float(score), video, segment)
            for video, detections in found.items()
            for score, segment in zip(
                detections.scores[detections.classes == kind], detections.segments[detections.classes == kind]
            )
        ]
        rows.append(average_precision(true, predictions, thresholds))
    return np.mean(rows, axis=0).tolist()


def average_precision(
    true: dict[int, Tensor], predictions: Sequence[tuple[float, int, Tensor]], thresholds: Sequence[float]
) -> list[float]:
    """The interpolated average precision of one class, for each threshold.

    ``true`` holds the segments of each video, ``M 2``; a prediction is (score, video, segment ``2``). In descending
    order of score, each prediction matches the unmatched true segment of maximum overlap, if above the threshold.
    Precision at a recall is the maximum at that recall or higher.
    """
    total = sum(len(segments) for segments in true.values())
    taken = [{video: [False] * len(segments) for video, segments in true.items()} for _ in thresholds]
    hits = np.zeros((len(thresholds), len(predictions)))
    for i, (_, video, segment) in enumerate(sorted(predictions, key=lambda p: -p[0])):
        if video not in true:
            continue
        overlap = iou(segment[None].double(), true[video])[0].tolist()
        nearest = sorted(range(len(overlap)), key=lambda j: -overlap[j])
        for t, threshold in enumerate(thresholds):
            free = (j for j in nearest if overlap[j] >= threshold and not taken[t][video][j])
            if (best := next(free, None)) is not None:
                taken[t][video][best] = True
                hits[t, i] = 1
    return [area_under_precision(row, total) for row in hits]
