"""Average precision, as the public evaluations of detection and of localisation compute it."""

from __future__ import annotations

import numpy as np


def area_under_precision(hits: np.ndarray, total: int) -> float:
    """The area under the curve of precision over recall, made to fall (PASCAL VOC since 2010).

    ``hits`` (``N``) is one where a prediction is right, from the surest on, of ``total`` things to be found.
    """
    right = hits.cumsum()
    precision = right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * hits).sum() / total)
