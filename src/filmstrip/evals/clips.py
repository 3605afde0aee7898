"""The clips that protocols of generation look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from filmstrip.data.reading.loader import eval_batches
from filmstrip.errors import UserError
from filmstrip.evals import Subject
from filmstrip.evals.distributed import map_batches
from filmstrip.protocols import Batch

log = logging.getLogger(__name__)

Found = TypeVar("Found")


def of_first_clips(
    subject: Subject,
    look: Callable[[Batch, int], Found],
    split: str | None = None,
    *,
    most: int | None = None,
    num_frames: int | None = None,
    batch_size: int = 16,
) -> Iterator[Found]:
    """What ``look`` finds in batches of one clip of each of the first ``most`` readable videos of a split, in order.

    It gets a batch on the device, and the number of clips before it; tensors in what it returns lie on the CPU.
    ``split`` is by default the data's ``eval_split``, and clips have the data's frames unless ``num_frames`` says
    otherwise. Several processes share the clips, and each gets everything that was found.

    Raises:
        UserError: the split has no readable video.
    """
    data = subject.data
    if num_frames is not None:
        data = replace(data, clip=replace(data.clip, num_frames=num_frames))
    split = split or data.eval_split

    def look_on_device(batch: Batch, before: int) -> Found:
        if "video" in batch and not before:
            _check_length(batch["video"])
        there = {k: v.to(subject.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        return look(there, before)

    batches = eval_batches(subject.source, data, split, batch_size=batch_size)
    empty = True
    for found in map_batches(subject, batches, look_on_device, most=most):
        empty = False
        yield found
    if empty:
        raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")


def _check_length(video: Tensor) -> None:
    """Say so where the videos seem to be shorter than a clip: the rest of it is their last frame."""
    if video.shape[1] > 2 and bool(torch.equal(video[:, -1], video[:, -2])):
        log.warning(
            "the last two frames of every clip are equal: clips of %d frames may be longer than the videos",
            video.shape[1],
        )
