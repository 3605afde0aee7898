"""Multiple choice by likelihood: the most probable of the given answers, with and without the video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.config import Data
from filmstrip.data.kinds.conversations import ConversationSample, with_answers
from filmstrip.data.sources import Source
from filmstrip.evals.answers import REQUIRES, by_kind, model_of
from filmstrip.inference import on_device
from filmstrip.models.video_language import Seen
from filmstrip.protocols import Answers, Batch
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.text.conversation import Serialiser


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Evaluation):
    """Share of questions with options whose given answer the model finds the most probable of them.

    The same with the video hidden is the blind baseline: what questions and options alone give away.
    """

    requires: ClassVar[frozenset[str]] = REQUIRES
    takes_native: ClassVar[bool] = True

    by: Literal["token", "answer"] = "token"
    """Likelihood that is compared: that of the mean token of an answer, or that of the whole answer, which favours
    short ones."""
    num_questions: Count | None = None
    """Number of questions, the first of the split; by default all."""
    blind: bool = True
    """Whether to answer a second time without the video."""
    batch_size: Count = 8
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective answers, and the data are conversations."""
        model_of(subject)

    def lacking(self, source: Source, data: Data) -> str | None:
        """Questions of the split have options."""
        for split in self.splits_of(data):
            asked = [s for s in source.split(split) if isinstance(s, ConversationSample)]
            if without := [sample.name for sample in asked if not sample.dialogue.options]:
                return f"MultipleChoice needs options, and {without[0]} of {source.root} has none"
        return super().lacking(source, data)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``accuracy`` and that of every kind, the same after ``blind``, and ``count``.

        Raises:
            UserError: the objective does not answer, or no question can be read.
        """
        model = model_of(subject)

        def right(batch: Batch, samples: Sequence[ConversationSample], serialiser: Serialiser) -> list[Tensor]:
            visual = model.watch(batch)
            found = []
            for seen in (visual, visual * 0)[: 1 + self.blind]:
                rows = [seen[i : i + 1] for i in range(len(samples))]
                found.append(torch.tensor([self._is_right(model, v, s, serialiser) for v, s in zip(rows, samples)]))
            return found

        yield from by_kind(subject, right, self.split, self.batch_size, self.num_questions)

    def _is_right(self, model: Answers, visual: Seen, sample: ConversationSample, serialiser: Serialiser) -> float:
        options, turns = sample.dialogue.options, sample.dialogue.turns
        scores = option_scores(model, visual, sample, serialiser, by=self.by)
        return float(options[int(scores.argmax())] == turns[-1].text)


def option_scores(
    model: Answers, visual: Seen, sample: ConversationSample, serialiser: Serialiser, *, by: str
) -> Tensor:
    """Log-likelihood of every option, of its whole or of its mean token."""
    options, asked = sample.dialogue.options, sample.dialogue.turns[:-1]
    batch = on_device(with_answers(serialiser, [asked] * len(options), options), visual.device)
    likelihood, count = model.score(visual.expand(len(options), *visual.shape[1:]), batch)
    return likelihood / count if by == "token" else likelihood
