"""Answers to questions about videos: the share that is right, by kind of question, with and without the video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.kinds.conversations import ConversationSample, ConversationSource, prompts
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import inference, on_device
from filmstrip.models.video_language import Seen
from filmstrip.protocols import Answers, Batch
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.text.conversation import Serialiser

REQUIRES = frozenset({"video", "text", "learnt"})


@dataclass(frozen=True, kw_only=True)
class AnswerAccuracy(Evaluation):
    """Share of questions whose answer, in the model's own words, is the given one up to case, articles and marks.

    The same with the video hidden is the blind baseline: what the questions alone give away.
    """

    requires: ClassVar[frozenset[str]] = REQUIRES
    takes_native: ClassVar[bool] = True

    max_tokens: Count = 32
    """Maximum number of tokens of an answer."""
    num_questions: Count | None = None
    """Number of questions, the first of the split; by default all."""
    blind: bool = True
    """Whether to answer a second time without the video."""
    batch_size: Count = 16
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective answers, and the data are conversations."""
        model_of(subject)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``accuracy`` and that of every kind, the same after ``blind``, and ``count``.

        Raises:
            UserError: the objective does not answer, or no question can be read.
        """
        model = model_of(subject)

        def right(batch: Batch, samples: Sequence[ConversationSample], serialiser: Serialiser) -> list[Tensor]:
            asked = on_device(prompts(serialiser, [s.dialogue.turns[:-1] for s in samples]), subject.device)
            given = [normalised(s.dialogue.turns[-1].text) for s in samples]
            visual = model.watch(batch)
            found = []
            for seen in (visual, visual * 0)[: 1 + self.blind]:
                said = answers(model, seen, asked, serialiser, count=self.max_tokens)
                found.append(torch.tensor([normalised(a) == b for a, b in zip(said, given)], dtype=torch.float64))
            return found

        yield from by_kind(subject, right, self.split, self.batch_size, self.num_questions)


Judged = Callable[[Batch, Sequence[ConversationSample], Serialiser], list[Tensor]]
"""Values of a batch of questions, with the video and, if that is asked for, without."""


class Answered(NamedTuple):
    """Results of a batch of questions."""

    kinds: list[str]
    values: list[Tensor]
    """A value for every question, with the video and, if that is asked for, without."""


def by_kind(
    subject: Subject, function: Judged, split: str | None, batch_size: int, most: int | None
) -> Iterator[tuple[str, float]]:
    """Means of what a function says of questions, a value for each, with and without the video: over all, by kind.

    Raises:
        UserError: no question can be read.
    """
    kinds, found = asked_of(subject, function, split, batch_size, most)
    for name, values in found.items():
        yield from shares(name, kinds, values)
    yield "count", float(len(kinds))


def shares(name: str, kinds: Sequence[str], values: Tensor) -> Iterator[tuple[str, float]]:
    """The mean of a value of each question: over all, and by kind."""
    yield f"{name}accuracy", float(values.mean())
    for kind in sorted(set(kinds) - {""}):
        own = torch.tensor([k == kind for k in kinds])
        yield f"{name}accuracy/{kind}", float(values[own].mean())


def asked_of(
    subject: Subject, function: Judged, split: str | None, batch_size: int, most: int | None
) -> tuple[list[str], dict[str, Tensor]]:
    """What a function says of questions: their kinds, and a value for each, with the video and without (``blind/``).

    Raises:
        UserError: no question can be read.
    """
    source = cast(ConversationSource, subject.source)
    chosen = split or subject.data.eval_split
    samples = cast("Sequence[ConversationSample]", source.split(chosen))
    alone = subject.data.clip.native is not None  # one clip needs no padding, so that any model can see it
    loader = EvalLoader(source, subject.data, chosen, batch_size=1 if alone else batch_size)
    kinds: list[str] = []
    found: dict[str, list[Tensor]] = defaultdict(list)

    def of_batch(batch: Batch, before: int) -> Answered:
        rows = [samples[i].as_shown(batch, row) for row, i in enumerate(batch["index"].tolist())]
        with inference(subject.objective):
            values = function(on_device(batch, subject.device), rows, source.serialiser)
        return Answered([row.dialogue.kind for row in rows], [value.cpu() for value in values])

    for answered in map_batches(subject, loader, of_batch, max_rows=most):
        kinds += answered.kinds
        for name, values in zip(("", "blind/"), answered.values):
            found[name].append(values)
    if not kinds:
        raise UserError(f"no question of the split {chosen!r} of {source.root} can be read")
    return kinds, {name: torch.cat(parts) for name, parts in found.items()}


def answers(
    model: Answers,
    visual: Seen,
    asked: Batch,
    serialiser: Serialiser,
    *,
    count: int,
    seed: int | Tensor = 0,
    sampling: Any = None,
) -> list[str]:
    """An answer to each prompt, without a ``sampling`` the most probable one; drawing ends when all have ended."""
    rows: list[list[int]] = [[] for _ in range(visual.shape[0])]
    stop = serialiser.stop
    for ids in model.answer(visual, asked, count=count, seed=seed, sampling=sampling):
        for row, token in zip(rows, ids.tolist()):
            if tuple(row[-len(stop) :]) != stop:
                row.append(token)
        if all(tuple(row[-len(stop) :]) == stop for row in rows):
            break
    return [serialiser.decode(row) for row in rows]


def normalised(answer: str) -> str:
    """An answer in small letters, without articles and punctuation marks."""
    words = re.sub(r"[^\w\s]", " ", answer.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def model_of(subject: Subject) -> Answers:
    """The subject's model.

    Raises:
        UserError: it does not answer, or the data are no conversations.
    """
    if not isinstance(subject.objective, Answers):
        raise UserError(f"{type(subject.objective).__name__} does not answer questions: give a run of language.*")
    if not isinstance(subject.source, ConversationSource):
        raise UserError(f"{subject.source.root} holds no conversations (--data.reads conversations)")
    return subject.objective
