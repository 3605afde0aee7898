"""Dense probe: a linear classifier of single patch tokens says what is at each place of a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count, Weight
from filmstrip.evals.clips import map_clips
from filmstrip.evals.linear_probe import fit_logistic
from filmstrip.inference import encoder_of, inference
from filmstrip.protocols import Batch, Grid
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class DenseProbe(Evaluation):
    """Share of cells of a frame that a linear classifier of frozen patch tokens names, and the classes' mean IoU.

    A cell is what one token covers, of the middle time step of a clip. Within a box of the clip (``data.reads
    regions``) its class is the clip's, elsewhere the background. The same probe on another clip's tokens, which knows
    no more than where things usually are, is the blind baseline.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "boxes", "label"})
    compares_classes: ClassVar[bool] = True
    uses_training_split: ClassVar[bool] = True

    penalty: Weight = 1e-3
    """L2 penalty of the classifier: ``penalty / 2 * |weights|^2`` is added to the mean cross-entropy."""
    max_clips: Count = 500
    """Maximum number of clips of each split."""
    batch_size: Count = 16

    def check(self, subject: Subject) -> None:
        """The objective has an encoder."""
        encoder_of(subject.objective)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``dense/cell_accuracy`` and ``dense/miou``, then both of the blind baseline."""
        train, test = (self._cells(subject, split) for split in self.splits_of(subject.data))
        num_classes = 1 + len(subject.source.classes)
        for name, shift in (("", 0), ("blind_", 1)):
            (tokens, truth), (others, wanted) = (
                (found.roll(shift, dims=0).flatten(0, 1), classes.flatten()) for found, classes in (train, test)
            )
            predicted = probed(tokens, truth, others, num_classes, self.penalty)
            yield f"dense/{name}cell_accuracy", (predicted == wanted).float().mean().item()
            yield f"dense/{name}miou", mean_iou(predicted, wanted, num_classes)

    def _cells(self, subject: Subject, split: str) -> tuple[Tensor, Tensor]:
        """Tokens ``N cells D`` and classes ``N cells`` of the clips of a split."""

        def encode(batch: Batch, before: int) -> tuple[Tensor, Tensor]:
            with inference(subject.objective):
                seen = encoder_of(subject.objective)(batch["video"])
            step = seen.grid.t // 2
            tokens = seen.tokens.unflatten(1, (seen.grid.t, -1))[:, step].float()
            boxes = batch["boxes"][:, :, step * batch["boxes"].shape[2] // seen.grid.t]
            labels = (batch["label"][:, None] + 1).expand(boxes.shape[:2])
            return tokens.cpu(), cell_classes(boxes, labels, seen.grid).cpu()

        found = map_clips(subject, encode, split, max_clips=self.max_clips, batch_size=self.batch_size)
        tokens, classes = zip(*found)
        return torch.cat(tokens), torch.cat(classes)


def cell_classes(boxes: Tensor, classes: Tensor, grid: Grid) -> Tensor:
    """The class of every cell of a frame's grid, ``B h*w``: that of the smallest box that its middle is in, else 0.

    ``boxes`` (``B M 4``) are fractions of the frame; ``classes`` (``B M``) count from 1.
    """
    y = (torch.arange(grid.h, device=boxes.device) + 0.5) / grid.h
    x = (torch.arange(grid.w, device=boxes.device) + 0.5) / grid.w
    left, top, right, bottom = (side[..., None, None] for side in boxes.unbind(-1))
    within = (left <= x) & (x < right) & (top <= y[:, None]) & (y[:, None] < bottom)
    area = (right - left) * (bottom - top)
    smallest = area.expand(within.shape).masked_fill(~within, torch.inf).min(dim=1)
    found = classes.gather(1, smallest.indices.flatten(1))
    return torch.where(smallest.values.flatten(1).isinf(), 0, found)


def probed(tokens: Tensor, truth: Tensor, others: Tensor, num_classes: int, penalty: float) -> Tensor:
    """The classes ``M`` of tokens ``M D``, by a linear classifier that was fitted to others (``N D`` and ``N``)."""
    mean, scale = tokens.mean(dim=0), tokens.std(dim=0, correction=0)
    scale = torch.where(scale > 1e-6 * mean.abs() + 1e-12, scale, torch.ones_like(scale))
    weight, bias = fit_logistic((tokens - mean) / scale, truth, num_classes, penalty)
    return torch.addmm(bias, (others - mean) / scale, weight).argmax(dim=1)


def mean_iou(predicted: Tensor, truth: Tensor, num_classes: int) -> float:
    """The intersection over union of the cells of each class (both ``N``), mean over the classes that there are."""
    each = torch.arange(num_classes, device=truth.device)[:, None]
    ours, theirs = predicted == each, truth == each
    either = (ours | theirs).sum(dim=1)
    shared = (ours & theirs).sum(dim=1)
    return (shared[either > 0].double() / either[either > 0]).mean().item()
