"""How well the steps of procedures are named: metrics of sequences, and what a forecaster says of a split.

Sequences are ``N T`` int64 step ids; every metric is a share from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstrip.data.kinds.procedures import ProcedureSource
from filmstrip.data.reading.loader import eval_batches
from filmstrip.errors import UserError
from filmstrip.evals import Subject
from filmstrip.inference import inference
from filmstrip.progress import tracked
from filmstrip.protocols import Batch, Forecaster

REQUIRES = frozenset({"features", "step", "seen", "target"})
"""What batches must hold for all protocols of procedures."""


def top1(predicted: Tensor, true: Tensor) -> float:
    """Share of all steps that are right; what papers on planning call mean accuracy."""
    return float((predicted == true).double().mean())


def success_rate(predicted: Tensor, true: Tensor) -> float:
    """Share of sequences of which every step is right, at its place."""
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
    """Where a step was there before, ``N T``."""
    same = steps[:, :, None] == steps[:, None, :]
    return same.tril(diagonal=-1).any(dim=2)


def mean_iou_of_ids(predicted: Tensor, true: Tensor) -> float:
    """What SCHEMA's public evaluation prints as mIoU: the *bits* of ids that agree over those in either.

    It takes ``and`` and ``or`` of the numbers of steps, place by place, and adds them up as numbers; so it depends on
    how steps are numbered, and is far higher than the IoU of sets. Only to compare with published tables.
    """
    shared, either = (predicted & true).sum(dim=1).double(), (predicted | true).sum(dim=1).double()
    return float(((shared + 1e-6) / (either + 1e-6)).mean())


def edit_distance(predicted: Tensor, true: Tensor, transpositions: bool = True) -> Tensor:
    """Edits that lead from each sequence to the other over their length Z, ``N`` float64.

    Damerau-Levenshtein (optimal string alignment): insert, delete, replace, and swap neighbours, where nothing that
    was swapped is edited again. Without ``transpositions``, Levenshtein, which Ego4D's public code counts.
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


def least_edit_distance(predicted: Tensor, true: Tensor, transpositions: bool = True) -> float:
    """ED@Z: the least distance of ``N K Z`` sequences to the true ``N Z``, averaged over N."""
    draws = [edit_distance(drawn, true, transpositions) for drawn in predicted.unbind(1)]
    return float(torch.stack(draws).amin(dim=0).mean())


def class_mean_recall(scores: Tensor, true: Tensor, top_k: int = 5) -> float:
    """Recall among the ``top_k`` best of ``N C`` scores within each class of ``true`` (``N``), then their mean."""
    found = (scores.topk(min(top_k, scores.shape[1]), dim=1).indices == true[:, None]).any(dim=1)
    counts = torch.bincount(true, minlength=scores.shape[1]).double()
    hits = torch.bincount(true[found], minlength=scores.shape[1]).double()
    return float((hits / counts)[counts > 0].mean())


@dataclass(frozen=True)
class Answers:
    """What a forecaster says of the steps that are asked for in each window of a split."""

    probabilities: Tensor
    """``N K T C`` float32, of K draws."""
    true: Tensor
    """``N T`` int64."""
    index: Tensor
    """``N``, the windows' places in the split."""

    @property
    def predicted(self) -> Tensor:
        """The most probable steps, ``N T``, of the mean over draws."""
        return self.probabilities.mean(dim=1).argmax(dim=-1)


def procedure_batches(subject: Subject, split: str | None, batch_size: int) -> Iterator[Batch]:
    """The windows of a split, on the device.

    Raises:
        UserError: the data are no procedures, or none can be read.
    """
    if not isinstance(subject.source, ProcedureSource):
        raise UserError(f"{subject.source.root} holds no procedures: read such data (--data.reads)")
    split, count = split or subject.data.eval_split, 0
    batches = eval_batches(subject.source, subject.data, split, batch_size=batch_size)
    for batch in tracked(batches, "evaluating", total=-(-batches.num_videos // batch_size)):
        count += 1
        yield {key: value.to(subject.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    if not count:
        raise UserError(f"no window of the split {split!r} is readable: nothing to evaluate")


def forecaster_of(subject: Subject) -> Forecaster:
    """The forecaster that a protocol looks at.

    Raises:
        UserError: the objective is none.
    """
    if not isinstance(subject.objective, Forecaster):
        name = type(subject.objective).__name__
        raise UserError(f"{name} forecasts no steps: this evaluation needs a run of procedures.*")
    return subject.objective


def answers(
    subject: Subject, *, split: str | None = None, samples: int = 1, seed: int = 0, batch_size: int = 64
) -> Answers:
    """Ask the objective for the steps of every window of a split.

    Raises:
        UserError: the objective is no forecaster, knows other steps than the data has, or its output is not finite.
    """
    forecaster = forecaster_of(subject)
    probabilities, true, index, first = [], [], [], seed
    for batch in procedure_batches(subject, split, batch_size):
        with inference(forecaster):
            logits = forecaster.predict(batch, samples=samples, seed=first)
        first += len(batch["name"])
        if logits.shape[-1] != len(subject.source.classes):
            raise UserError(
                f"the model knows {logits.shape[-1]} steps, but the data has {len(subject.source.classes)}"
            )
        asked = [row.nonzero()[:, 0] for row in batch["target"]]  # as many in every window of a task
        places = torch.stack(asked)
        rows = torch.arange(len(places), device=places.device)[:, None]
        probabilities.append(logits.float().softmax(dim=-1).transpose(1, 2)[rows, places].transpose(1, 2).cpu())
        true.append(batch["step"][rows, places].cpu())
        index.append(batch["index"].cpu())
    found = Answers(torch.cat(probabilities), torch.cat(true), torch.cat(index))
    if not found.probabilities.isfinite().all():
        raise UserError("the model's logits are not finite: its training diverged")
    return found
