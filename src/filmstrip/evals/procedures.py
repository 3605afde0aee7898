"""Forecasts of procedure steps over a split, and metrics of step sequences.

Sequences are ``N T`` int64 step ids; every metric is a share from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstrip.data.reading.loader import EvalLoader
from filmstrip.errors import UserError
from filmstrip.inference import inference, on_device
from filmstrip.progress import tracked
from filmstrip.protocols import Batch, Forecaster
from filmstrip.runs.evaluation import Subject

REQUIRES = frozenset({"features", "step", "seen", "target"})
"""Batch keys that all procedure protocols need."""


def top1(predicted: Tensor, true: Tensor) -> float:
    """Share of correct steps; called mean accuracy in papers on planning."""
    return float((predicted == true).double().mean())


def success_rate(predicted: Tensor, true: Tensor) -> float:
    """Share of sequences in which every step is correct."""
    return float((predicted == true).all(dim=1).double().mean())


def mean_iou(predicted: Tensor, true: Tensor) -> float:
    """Intersection over union of each sequence's *set* of steps, averaged over sequences.

    The variant of PDPP's public evaluation, one sequence at a time; order and repetition do not count.
    """
    common = (predicted[:, :, None] == true[:, None, :]).any(dim=2)
    shared = (common & ~_repeated(predicted)).sum(dim=1)
    sizes = (~_repeated(predicted)).sum(dim=1) + (~_repeated(true)).sum(dim=1)
    return float((shared.double() / (sizes - shared)).mean())


def _repeated(steps: Tensor) -> Tensor:
    """Mask of repeated steps, ``N T``."""
    same = steps[:, :, None] == steps[:, None, :]
    return same.tril(diagonal=-1).any(dim=2)


def mean_iou_of_ids(predicted: Tensor, true: Tensor) -> float:
    """The mIoU of SCHEMA's public evaluation: bitwise ``and`` over bitwise ``or`` of step ids.

    Both are taken per position and summed as numbers, so the value depends on how steps are numbered, and is far
    higher than the IoU of sets. For comparison with published tables only.
    """
    shared, either = (predicted & true).sum(dim=1).double(), (predicted | true).sum(dim=1).double()
    return float(((shared + 1e-6) / (either + 1e-6)).mean())


def edit_distance(predicted: Tensor, true: Tensor, transpositions: bool = True) -> Tensor:
    """Edit distance of each pair of sequences over their length Z, ``N`` float64.

    Damerau-Levenshtein (optimal string alignment): insertion, deletion, substitution, and transposition of
    neighbours, which are then not edited again. Without ``transpositions``, Levenshtein, as in Ego4D's public code.
    """
    length = true.shape[1]
    # rows[i] holds, at [:, j], the distance between the first i steps of one and the first j of the other.
    first = torch.arange(length + 1).expand(len(true), -1)
    rows = [first]
    for i in range(1, length + 1):
        row = [torch.full((len(true),), i)]
        for j in range(1, length + 1):
            other = (predicted[:, i - 1] != true[:, j - 1]).long()
            best = torch.minimum(torch.minimum(rows[i - 1][:, j], row[j - 1]) + 1, rows[i - 1][:, j - 1] + other)
            if transpositions and i > 1 and j > 1:
                crossed = (predicted[:, i - 1] == true[:, j - 2]) & (predicted[:, i - 2] == true[:, j - 1])
                best = torch.where(crossed, torch.minimum(best, rows[i - 2][:, j - 2] + 1), best)
            row.append(best)
        rows.append(torch.stack(row, dim=1))
    return rows[-1][:, -1].double() / length


def min_edit_distance(predicted: Tensor, true: Tensor, transpositions: bool = True) -> float:
    """ED@Z: the minimum distance over K of ``N K Z`` sequences to the true ``N Z``, averaged over N."""
    draws = [edit_distance(drawn, true, transpositions) for drawn in predicted.unbind(1)]
    return float(torch.stack(draws).amin(dim=0).mean())


def class_mean_recall(scores: Tensor, true: Tensor, top_k: int = 5) -> float:
    """Recall at ``top_k`` of ``N C`` scores within each class of ``true`` (``N``), averaged over classes."""
    found = (scores.topk(min(top_k, scores.shape[1]), dim=1).indices == true[:, None]).any(dim=1)
    counts = torch.bincount(true, minlength=scores.shape[1]).double()
    hits = torch.bincount(true[found], minlength=scores.shape[1]).double()
    return float((hits / counts)[counts > 0].mean())


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of the target steps of each window of a split."""

    probabilities: Tensor
    """Step probabilities of K samples, ``N K T C`` float32."""
    true: Tensor
    """True steps, ``N T`` int64."""
    index: Tensor
    """Indices of the windows in the split, ``N``."""

    @property
    def predicted(self) -> Tensor:
        """The most probable steps after averaging over samples, ``N T``."""
        return self.probabilities.mean(dim=1).argmax(dim=-1)


def procedure_batches(subject: Subject, split: str | None, batch_size: int) -> Iterator[Batch]:
    """The windows of a split, on the device.

    Raises:
        UserError: the data are not procedures, or none is readable.
    """
    if not subject.source.gives >= REQUIRES:
        raise UserError(f"{subject.source.root} holds no procedures: read such data (--data.reads)")
    split, count = split or subject.data.eval_split, 0
    batches = EvalLoader(subject.source, subject.data, split, batch_size=batch_size)
    for batch in tracked(batches, "evaluating", total=-(-batches.num_videos // batch_size)):
        count += 1
        yield on_device(batch, subject.device)
    if not count:
        raise UserError(f"no window of the split {split!r} is readable: nothing to evaluate")


def forecaster_of(subject: Subject) -> Forecaster:
    """The subject's forecaster.

    Raises:
        UserError: the objective is not a forecaster.
    """
    if not isinstance(subject.objective, Forecaster):
        name = type(subject.objective).__name__
        raise UserError(f"{name} does not forecast steps: this evaluation needs a run of procedures.*")
    return subject.objective


def forecasts(
    subject: Subject, *, split: str | None = None, samples: int = 1, seed: int = 0, batch_size: int = 64
) -> Forecasts:
    """Forecast the target steps of every window of a split.

    Raises:
        UserError: the objective is not a forecaster, its steps are not the data's, or its output is not finite.
    """
    forecaster = forecaster_of(subject)
    probabilities, true, index, first = [], [], [], seed
    for batch in procedure_batches(subject, split, batch_size):
        with inference(subject.objective):
            logits = forecaster.forecast(batch, samples=samples, seed=first)
        first += len(batch["name"])
        if logits.shape[-1] != len(subject.source.classes):
            raise UserError(f"the model has {logits.shape[-1]} steps, but the data has {len(subject.source.classes)}")
        targets = [row.nonzero()[:, 0] for row in batch["target"]]  # equally many in every window of a task
        positions = torch.stack(targets)
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        probabilities.append(logits.float().softmax(dim=-1).transpose(1, 2)[rows, positions].transpose(1, 2).cpu())
        true.append(batch["step"][rows, positions].cpu())
        index.append(batch["index"].cpu())
    found = Forecasts(torch.cat(probabilities), torch.cat(true), torch.cat(index))
    if not found.probabilities.isfinite().all():
        raise UserError("the model's logits are not finite: its training diverged")
    return found
