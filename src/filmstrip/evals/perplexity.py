"""How well a language model predicts held-out text: nats of a token, and their exponential."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.kinds.documents import Documents
from filmstrip.errors import Diverged, UserError
from filmstrip.evals.clips import map_clips
from filmstrip.inference import inference
from filmstrip.protocols import Batch, TextWriter
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Perplexity(Evaluation):
    """Nats of a learnt token of held-out text under a language model, each from all before it in its row.

    With several ``parts``, also of the tokens in each of as many equal parts of a row: what a longer context gives.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"text", "learnt"})
    takes_native: ClassVar[bool] = True

    num_rows: Count | None = None
    """Number of rows or conversations, the first of the split; by default all."""
    parts: Count = 1
    """Number of equal parts of a row whose tokens are told apart."""
    batch_size: Count = 4
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective is a language model of text."""
        if not isinstance(subject.objective, TextWriter):
            raise UserError(
                f"{type(subject.objective).__name__} is no language model of text alone: give a run of "
                "language.lwm_text"
            )

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``nats``, ``perplexity`` and the number of ``tokens``, and ``nats/K_of_N`` of each part.

        Raises:
            UserError: the objective is no language model of text, or no row can be read.
            Diverged: the loss is not finite.
        """
        self.check(subject)
        model, reads = subject.objective, subject.data.reads
        assert isinstance(model, TextWriter), "checked above"

        def summed(batch: Batch, before: int) -> Tensor:
            with inference(subject.objective):
                losses, learnt = model.text_losses(batch)
            room = reads.length if isinstance(reads, Documents) else losses.shape[1]  # the last row may be shorter
            part = torch.arange(losses.shape[1]) * self.parts // room
            totals = torch.zeros(2, self.parts, dtype=torch.float64)
            return totals.index_add_(1, part, torch.stack([losses, learnt]).double().sum(dim=1).cpu())

        of_batches = map_clips(subject, summed, self.split, max_clips=self.num_rows, batch_size=self.batch_size)
        losses, counts = torch.stack([*of_batches]).sum(dim=0)
        nats = float(losses.sum() / counts.sum().clamp(min=1))
        if not math.isfinite(nats):
            raise Diverged("the loss of text is not finite: the model's training diverged")
        yield "nats", nats
        yield "perplexity", math.exp(min(nats, 700.0))
        yield "tokens", float(counts.sum())
        if self.parts > 1:
            for i, (loss, count) in enumerate(zip(losses, counts), 1):
                yield f"nats/{i}_of_{self.parts}", float(loss / count.clamp(min=1))
