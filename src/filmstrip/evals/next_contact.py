"""Short-term anticipation of object interactions: top-k mean average precision (Grauman et al. 2022, appendix).

Predictions are boxes of objects that will be touched next, each with a score, a noun, a verb and the seconds to
contact. An image shows one future among several, so that its ``top_k - 1`` highest false positives for each annotated
object are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count, Rate, Share
from filmstrip.data.kinds.contacts import ContactSource
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.distributed import process
from filmstrip.errors import UserError
from filmstrip.evals.average_precision import area_under_precision
from filmstrip.evals.distributed import map_batches
from filmstrip.files import write_json
from filmstrip.inference import inference
from filmstrip.protocols import Batch, ContactForecaster
from filmstrip.runs.evaluation import Evaluation, Subject

MEASURES = {
    "noun": (False, False),
    "noun_verb": (True, False),
    "noun_ttc": (False, True),
    "overall": (True, True),
}
"""Whether a match needs the same verb, and a close time to contact, beside a box that overlaps and the same noun."""


@dataclass(frozen=True, eq=False)
class Contacts:
    """Objects of one image that are touched next, annotated or predicted."""

    boxes: np.ndarray
    """Left, top, right and bottom in pixels, ``N 4``."""
    nouns: np.ndarray
    """Class of each object, ``N`` integers."""
    verbs: np.ndarray
    """Class of each action, ``N`` integers."""
    seconds: np.ndarray
    """Time to contact, ``N``."""
    scores: np.ndarray | None = None
    """Confidences, ``N``; of predictions only."""


@dataclass(frozen=True, kw_only=True)
class NextContactMAP(Evaluation):
    """Top-k mean average precision of the objects that will be touched next, of Ego4D's benchmark.

    Four figures: of boxes with the right noun; with the verb as well; with the time to contact; with both.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "boxes", "contact"})

    top_k: Count = 5
    """Number of contacts that are allowed for each annotated object: of one fewer false positives do not count."""
    min_iou: Share = 0.5
    """Minimum intersection over union with an annotated box."""
    max_seconds: Rate = 0.25
    """Maximum error of the time to contact, in seconds."""
    batch_size: Count = 8
    """Number of frames per batch."""
    split: str | None = None
    """By default the data's ``eval_split``."""
    out: Path | None = None
    """Output file for the contacts of all frames, in the format of Ego4D's benchmark (JSON)."""

    def check(self, subject: Subject) -> None:
        """The objective finds contacts, and the data have some."""
        if not isinstance(subject.objective, ContactForecaster):
            name = type(subject.objective).__name__
            raise UserError(f"{name} finds no next contacts: this evaluation needs a run of detection.next_contact")
        if not isinstance(subject.source, ContactSource):
            raise UserError(
                f"{subject.source.root} holds no annotated contacts: read such data (--data.reads contacts)"
            )

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``NAME_mAP`` for each of :data:`MEASURES`, and ``count``, the number of frames.

        Raises:
            UserError: the objective finds no contacts, the data have none, no frame is readable, or ``out`` cannot be
                written.
        """
        self.check(subject)
        model, source, data = subject.objective, subject.source, subject.data
        assert isinstance(model, ContactForecaster) and isinstance(source, ContactSource), "checked above"
        split = self.split or data.eval_split

        def evaluate_batch(batch: Batch, before: int) -> list[tuple[int, Contacts, Contacts]]:
            with inference(model):
                found = model.next_contacts(batch["video"].to(subject.device, non_blocking=True))
            rows = []
            for i, index in enumerate(batch["index"].tolist()):
                size, there = batch["frame_size"][i], batch["is_object"][i]
                seen = found.scores[i].cpu() > 0
                predicted = [part[i].cpu()[seen] for part in found]
                annotated = [batch[key][i][there] for key in ("boxes", "noun", "verb", "contact")]
                rows.append((index, in_pixels(size, *predicted), in_pixels(size, *annotated)))
            return rows

        batches = EvalLoader(source, data, split, batch_size=self.batch_size)
        rows = [row for part in map_batches(subject, batches, evaluate_batch) for row in part]
        if not rows:
            raise UserError(f"no frame of the split {split!r} is readable: nothing to evaluate")
        if self.out is not None and process.rank() == 0:
            samples = source.split(split)
            write_json(submission({samples[i].name: found for i, found, _ in rows}, source), self.out)
        precision = contact_precision(
            [row[1:] for row in rows], top_k=self.top_k, min_iou=self.min_iou, max_seconds=self.max_seconds
        )
        yield from ((f"{name}_mAP", value) for name, value in precision.items())
        yield "count", float(len(rows))


def in_pixels(
    size: Tensor, boxes: Tensor, nouns: Tensor, verbs: Tensor, seconds: Tensor, scores: Tensor | None = None
) -> Contacts:
    """Contacts of one frame of ``size`` (height and width) whose boxes are fractions."""
    scale = torch.stack([size[1], size[0], size[1], size[0]])
    return Contacts(
        (boxes.double() * scale).numpy(),
        nouns.numpy(),
        verbs.numpy(),
        seconds.numpy(),
        None if scores is None else scores.numpy(),
    )


def submission(found: dict[str, Contacts], source: ContactSource) -> dict[str, Any]:
    """Contacts by the names of their frames, as Ego4D's benchmark reads them."""
    results = {}
    for name, contacts in found.items():
        assert contacts.scores is not None, "they are predicted"
        columns = (contacts.boxes, contacts.nouns, contacts.verbs, contacts.seconds, contacts.scores)
        results[name] = [
            {
                "box": [float(side) for side in box],
                "noun_category_id": source.noun_numbers[noun],
                "verb_category_id": source.verb_numbers[verb],
                "time_to_contact": float(seconds),
                "score": float(score),
            }
            for box, noun, verb, seconds, score in zip(*columns)
        ]
    challenge = "ego4d_short_term_object_interaction_anticipation"
    return {"version": "1.0", "challenge": challenge, "results": results}


def contact_precision(
    images: Iterable[tuple[Contacts, Contacts]],
    *,
    top_k: int = 5,
    min_iou: float = 0.5,
    max_seconds: float = 0.25,
) -> dict[str, float]:
    """Mean average precision over nouns of each of :data:`MEASURES`, 0..1, of ``(predicted, annotated)`` images.

    In order of score each prediction is matched with the free annotation of maximum overlap among those that it fits:
    overlap above ``min_iou``, same noun and, depending on the measure, same verb and a time within ``max_seconds``.
    Then, in each image, the first ``(top_k - 1) * M`` false positives are removed, of whatever noun, where ``M`` is
    the number of annotated objects. Nouns that are never annotated do not count.

    Differs from StillFast's code in one case: objects of an image without any prediction count as missed here, and
    are left out there.

    Raises:
        ValueError: predictions have no scores, or nothing is annotated.
    """
    images = list(images)
    totals: dict[int, int] = {}
    for _, annotated in images:
        for noun in annotated.nouns.tolist():
            totals[noun] = totals.get(noun, 0) + 1
    if not totals:
        raise ValueError("no image has an annotated object")
    result = {}
    for name, needs in MEASURES.items():
        rows = [_judged(predicted, annotated, needs, top_k, min_iou, max_seconds) for predicted, annotated in images]
        scores, nouns, hits = (np.concatenate(column) for column in zip(*rows))
        order = np.argsort(-scores, kind="stable")
        nouns, hits = nouns[order], hits[order]
        found = [area_under_precision(hits[nouns == noun], total) for noun, total in sorted(totals.items())]
        result[name] = sum(found) / len(found)
    return result


def _judged(
    predicted: Contacts,
    annotated: Contacts,
    needs: tuple[bool, bool],
    top_k: int,
    min_iou: float,
    max_seconds: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, noun and hit (0 or 1) of each prediction that counts, in descending order of score."""
    if predicted.scores is None:
        raise ValueError("predictions need scores")
    order = np.argsort(-predicted.scores, kind="stable")
    overlaps = _overlaps(predicted.boxes, annotated.boxes)
    fits = (overlaps > min_iou) & (predicted.nouns[:, None] == annotated.nouns)
    if needs[0]:
        fits &= predicted.verbs[:, None] == annotated.verbs
    if needs[1]:
        fits &= np.abs(predicted.seconds[:, None] - annotated.seconds) <= max_seconds
    free = np.ones(len(annotated.boxes), bool)
    hits = np.zeros(len(order))
    for place, i in enumerate(order):
        candidates = np.where(fits[i] & free, overlaps[i], -1.0)
        if len(candidates) and candidates.max() >= 0:
            free[candidates.argmax()] = False
            hits[place] = 1.0
    misses = np.cumsum(1 - hits)
    counts = (hits == 1) | (misses > (top_k - 1) * len(annotated.boxes))
    return predicted.scores[order][counts], predicted.nouns[order][counts], hits[counts]


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes whose last row and column belong to them, ``N M``."""
    one, other = one.reshape(-1, 1, 4).astype(float), other.reshape(1, -1, 4).astype(float)
    first, last = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = (last - first + 1).clip(min=0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + 1).clip(min=0).prod(axis=-1) for boxes in (one, other)]
    return shared / (areas[0] + areas[1] - shared + 1e-11)
