"""Moment retrieval and highlight detection by queries, as the public evaluation of QVHighlights computes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count, NotEmpty, Share, Weight
from filmstrip.data.kinds.moments import MomentSample, MomentSource
from filmstrip.data.moments.types import Query
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_batches
from filmstrip.evals.localisation import average_precision
from filmstrip.inference import inference, on_device
from filmstrip.nn.segments import iou
from filmstrip.protocols import Batch, Grounder, Grounding
from filmstrip.runs.evaluation import Evaluation, Subject

OVERLAPS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""Overlaps over which mAP is averaged."""
VERY_GOOD = 4.0
"""Minimum score of a highlight, of which papers report the figures."""


@dataclass(frozen=True, kw_only=True)
class MomentRetrieval(Evaluation):
    """Recall of the first moment (R1), mean overlap (mIoU) and mean average precision (mAP) of moments. Where clips
    are rated, mAP of highlights and hits of the best clip (HIT@1)."""

    requires: ClassVar[frozenset[str]] = frozenset(
        {"sequence", "length", "timing", "seconds", "query", "query_length"}
    )

    thresholds: Annotated[tuple[Share, ...], NotEmpty] = (0.3, 0.5, 0.7)
    """Minimum overlaps at which the first moment counts as found."""
    max_moments: Count = 10
    """Maximum number of moments of a query that count for mAP."""
    round_to: Weight = 0.0
    """Multiple of seconds to which ends are rounded, as 2 for QVHighlights; zero for none."""
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective finds moments, and the data have some."""
        if not isinstance(subject.objective, Grounder):
            name = type(subject.objective).__name__
            raise UserError(f"{name} does not find moments: this evaluation needs a run of grounding.*")
        if not isinstance(subject.source, MomentSource):
            raise UserError(f"{subject.source.root} holds no queries: read such data (--data.reads moments)")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``R1@THRESHOLD``, ``mIoU``, ``mAP@0.5``, ``mAP@0.75``, ``mAP``, and if they are known ``highlight
        mAP`` and ``HIT@1``; ``count`` is the number of queries.

        Raises:
            UserError: the objective does not find moments, the data have none, or no video is readable.
        """
        self.check(subject)
        grounder, source = subject.objective, subject.source
        assert isinstance(grounder, Grounder), "checked above"
        assert isinstance(source, MomentSource), "checked above"
        split = self.split or subject.data.eval_split

        def ground(batch: Batch, before: int) -> list[tuple[int, list[Grounding]]]:
            with inference(grounder):
                found = grounder.ground(on_device(batch, subject.device))
            return list(zip(batch["index"].tolist(), found))

        batches = EvalLoader(source, subject.data, split, batch_size=32)
        answers = dict(pair for part in map_batches(subject, batches, ground) for pair in part)
        if not answers:
            raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")
        samples = [sample for sample in source.split(split) if isinstance(sample, MomentSample)]
        asked = [query for i in answers for query in samples[i].queries]
        found = [self._rounded(answer) for answer in (answer for i in answers for answer in answers[i])]
        yield from moment_metrics(asked, found, self.thresholds, self.max_moments)
        if source.raters and all(answer.saliency is not None for answer in found):
            yield from highlight_metrics(asked, found, source.clip_seconds)
        yield "count", float(len(asked))

    def _rounded(self, found: Grounding) -> Grounding:
        if not self.round_to:
            return found
        return Grounding((found.segments / self.round_to).round() * self.round_to, found.scores, found.saliency)


def moment_metrics(
    asked: Sequence[Query], found: Sequence[Grounding], thresholds: Sequence[float], max_moments: int = 10
) -> Iterator[tuple[str, float]]:
    """Metrics of the moments that were found for each query, by name."""
    first = first_overlaps(asked, found)
    yield from ((f"R1@{threshold:g}", float((first >= threshold).mean())) for threshold in thresholds)
    yield "mIoU", float(first.mean())
    precision = moment_precision(asked, found, max_moments)
    yield from ((f"mAP@{overlap:g}", precision[overlap]) for overlap in (0.5, 0.75))
    yield "mAP", float(np.mean(list(precision.values())))


def first_overlaps(asked: Sequence[Query], found: Sequence[Grounding]) -> np.ndarray:
    """The overlap of each query's first moment that was found with the annotated one that is nearest; 0 if none was
    found."""
    overlaps = [
        float(iou(answer.segments[:1], _moments(query)).max()) if len(answer.segments) else 0.0
        for query, answer in zip(asked, found)
    ]
    return np.array(overlaps)


def moment_precision(asked: Sequence[Query], found: Sequence[Grounding], max_moments: int = 10) -> dict[float, float]:
    """Mean over queries of the average precision of a query's moments, for each of :data:`OVERLAPS`."""
    rows = []
    for query, answer in zip(asked, found):
        best = [(float(score), 0, segment) for score, segment in zip(answer.scores, answer.segments)][:max_moments]
        rows.append(average_precision({0: _moments(query)}, best, OVERLAPS) if best else [0.0] * len(OVERLAPS))
    return dict(zip(OVERLAPS, np.mean(rows, axis=0).tolist()))


def highlight_metrics(
    asked: Sequence[Query], found: Sequence[Grounding], clip_seconds: float, least: float = VERY_GOOD
) -> Iterator[tuple[str, float]]:
    """Metrics of highlights: clips that a rater scored ``least`` or more.

    Average precision is of each rater and then averaged, zero for one who liked no clip; a hit is a clip that any of
    them liked. Queries without rated clips are left out.
    """
    precision, hits = [], []
    for query, answer in zip(asked, found):
        if not query.rated or answer.saliency is None:
            continue
        good = _scores(query, clip_seconds, len(answer.saliency)) >= least
        scores = np.zeros(len(good))
        scores[: len(answer.saliency)] = answer.saliency[: len(good)].numpy()
        best = int(answer.saliency.argmax())
        hits.append(bool(good[best].any()) if best < len(good) else False)
        precision.append(np.mean([clip_precision(good[:, rater], scores) for rater in range(good.shape[1])]))
    if precision:
        yield "highlight mAP", float(np.mean(precision))
        yield "HIT@1", float(np.mean(hits))


def clip_precision(good: np.ndarray, scores: np.ndarray) -> float:
    """Interpolated average precision of clips ``N`` by their scores, ties taken at once; 0 if none is good.

    The mean over the recalls that are reached of the best precision at that recall or a higher one.
    """
    if good.all() or not good.any():
        return float(good.all())
    order = np.argsort(-scores, kind="stable")
    right, ranks = good[order].cumsum(), np.arange(1, len(good) + 1)
    last = np.append(np.diff(scores[order]) != 0, True)  # of clips with one score
    right, precision = right[last], right[last] / ranks[last]
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[np.diff(right, prepend=0) > 0].mean())


def _moments(query: Query) -> Tensor:
    return torch.tensor(query.moments, dtype=torch.float64)


def _scores(query: Query, clip_seconds: float, count: int) -> np.ndarray:
    """Every rater's score of every clip of a query's video, ``N R``; zero where it is not relevant."""
    clips = count if query.seconds is None else int(query.seconds / clip_seconds)
    scores = np.zeros((clips, len(query.rated[0].scores)))
    for clip in query.rated:
        at = round(clip.start / clip_seconds)
        if at < clips:
            scores[at] = clip.scores
    return scores


def by_length(
    asked: Sequence[Query], found: Sequence[Grounding], lengths: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[str, list[Query], list[Grounding]]]:
    """Queries with those of their moments whose duration, in seconds, is above the first of a name's ``lengths`` and
    at most the second."""
    for name, (shortest, longest) in lengths.items():
        kept = []
        for query, answer in zip(asked, found):
            moments = tuple(m for m in query.moments if shortest < m[1] - m[0] <= longest)
            if moments:
                kept.append((replace(query, moments=moments), answer))
        yield name, [query for query, _ in kept], [answer for _, answer in kept]
