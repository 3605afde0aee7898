"""The clips that protocols of generation look at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from filmstrip.data.loader import eval_batches
from filmstrip.errors import UserError
from filmstrip.evals import Subject
from filmstrip.protocols import Batch

log = logging.getLogger(__name__)


def first_clips(
    subject: Subject,
    split: str | None = None,
    *,
    most: int | None = None,
    num_frames: int | None = None,
    batch_size: int = 16,
) -> Iterator[Batch]:
    """Batches of one clip of each of the first ``most`` readable videos of a split, on the device.

    ``split`` is by default the data's ``eval_split``, and clips have the data's frames unless ``num_frames`` says
    otherwise.

    Raises:
        UserError: the split has no readable video.
    """
    data = subject.data
    if num_frames is not None:
        data = replace(data, clip=replace(data.clip, num_frames=num_frames))
    split = split or data.eval_split
    seen = 0
    for batch in eval_batches(subject.source, data, split, batch_size=batch_size):
        if "video" in batch and not seen:
            _check_length(batch["video"])
        count = len(batch["name"]) if most is None else min(len(batch["name"]), most - seen)
        yield {
            key: value[:count].to(subject.device) if isinstance(value, Tensor) else value[:count]
            for key, value in batch.items()
        }
        seen += count
        if seen == most:
            return
    if not seen:
        raise UserError(f"no video of the split {split!r} is readable: nothing to evaluate")


def _check_length(video: Tensor) -> None:
    """Say so where the videos seem to be shorter than a clip: the rest of it is their last frame."""
    if video.shape[1] > 2 and bool(torch.equal(video[:, -1], video[:, -2])):
        log.warning(
            "the last two frames of every clip are equal: clips of %d frames may be longer than the videos",
            video.shape[1],
        )
