"""Average precision, as the public evaluations of detection and of localisation compute it."""

from __future__ import annotations

import numpy as np


def area_under_precision(hits: np.ndarray, total: int) -> float:
    """The area under the interpolated precision-recall curve (PASCAL VOC since 2010).

    ``hits`` (``N``) is one for true positives, in descending order of confidence, of ``total`` ground-truth
    instances.
    """
    right = hits.cumsum()
    precision = right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * hits).sum() / total)
