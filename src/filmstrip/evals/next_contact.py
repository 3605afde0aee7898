"""Short-term anticipation of object interactions: top-k mean average precision (Grauman et al. 2022, appendix).

Predictions are boxes of objects that will be touched next, each with a score, a noun, a verb and the seconds to
contact. An image shows one future among several, so that its ``top_k - 1`` highest false positives for each annotated
object are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from filmstrip.evals.average_precision import area_under_precision

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
