"""Evaluation over the first clips of a split, for generation and reconstruction protocols."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from filmstrip.data.reading.loader import EvalLoader
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import on_device
from filmstrip.protocols import Batch
from filmstrip.runs.evaluation import Subject

log = logging.getLogger(__name__)

Found = TypeVar("Found")


def map_clips(
    subject: Subject,
    function: Callable[[Batch, int], Found],
    split: str | None = None,
    *,
    max_clips: int | None = None,
    num_frames: int | None = None,
    batch_size: int = 16,
) -> Iterator[Found]:
    """Results of ``function`` on batches of one clip per video, of the first ``max_clips`` readable videos, in order.

    ``function`` receives a batch on the device and the number of clips before it; tensors that it returns must be on
    the CPU. ``split`` defaults to the data's ``eval_split`` and ``num_frames`` to the data's. Processes share the
    clips, and each receives all results.

    Raises:
        UserError: the split has no readable video.
    """
    data = subject.data
    if num_frames is not None:
        data = replace(data, clip=replace(data.clip, num_frames=num_frames))
    split = split or data.eval_split

    def evaluate_batch(batch: Batch, before: int) -> Found:
        if "video" in batch and not before:
            _check_length(batch["video"])
        return function(on_device(batch, subject.device), before)

    batches = EvalLoader(subject.source, data, split, batch_size=batch_size)
    empty = True
    for found in map_batches(subject, batches, evaluate_batch, max_rows=max_clips):
        empty = False
        yield found
    if empty:
        raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")


def _check_length(video: Tensor) -> None:
    """Warn if videos seem shorter than a clip, which is then padded with their last frame."""
    if video.shape[1] > 2 and bool(torch.equal(video[:, -1], video[:, -2])):
        log.warning(
            "the last two frames of every clip are equal: clips of %d frames may be longer than the videos",
            video.shape[1],
        )
