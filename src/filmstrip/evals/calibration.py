"""Calibration: whether pairs that a model calls matching with a probability match as often (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.evals.compared import compared, dual_encoder
from filmstrip.inference import inference
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Calibration(Evaluation):
    """Expected calibration error of the probability that a video and a caption match, over all pairs of a split.

    The probability is the sigmoid of the pair's logit, that of a model with the sigmoid loss.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "text"})
    takes_native: ClassVar[bool] = True

    num_bins: Count = 15
    """Number of intervals of the probability, all as wide."""
    batch_size: Count = 32

    def check(self, subject: Subject) -> None:
        """The objective encodes video and text, and the data have captions."""
        dual_encoder(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``calibration/error``, the mean probability, and the share of pairs that match."""
        objective, _ = dual_encoder(subject)
        split = subject.data.eval_split
        found = compared(subject, split, all_captions=False, batch_size=self.batch_size)
        with inference(subject.objective):
            logits = objective.similarity(found.videos.to(subject.device), found.texts.to(subject.device))
        probability, matches = logits.float().cpu().sigmoid().flatten(), found.matches.flatten()
        yield "calibration/error", calibration_error(probability, matches, self.num_bins)
        yield "calibration/mean_probability", probability.mean().item()
        yield "calibration/matching", matches.float().mean().item()


def calibration_error(probability: Tensor, true: Tensor, num_bins: int) -> float:
    """The mean distance between probability (``N``) and the share that is ``true``, over bins by their sizes."""
    bins = (probability * num_bins).long().clamp(max=num_bins - 1)
    zeros = torch.zeros(num_bins, dtype=torch.float64)
    gap = zeros.index_add(0, bins, probability.double() - true.double())
    return (gap.abs().sum() / len(probability)).item()
