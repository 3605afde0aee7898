"""Referring by text: the boxes that a language model writes, by their overlap with the given ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, cast

import torch
from torch import Tensor

from filmstrip.bounds import Bounds, Count
from filmstrip.data.config import Data
from filmstrip.data.kinds.conversations import ConversationSample, ConversationSource, prompts
from filmstrip.data.sources import Source
from filmstrip.evals.answers import REQUIRES, answers, asked_of, model_of, shares
from filmstrip.evals.referring import overlap
from filmstrip.inference import on_device
from filmstrip.protocols import Batch
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.text.boxes import Box, boxes_in
from filmstrip.text.conversation import Serialiser


@dataclass(frozen=True, kw_only=True)
class AnsweredBoxes(Evaluation):
    """Share of questions for a box whose answer has one with an IoU of one half or more, as RefCOCO's protocol.

    Questions are those whose given answer has one box, in the form of Qwen-VL and Qwen2-VL (Bai et al. 2023; Yu et
    al. 2016). The first box of an answer counts; an answer without one is wrong. The same with the video hidden is
    the blind baseline.
    """

    requires: ClassVar[frozenset[str]] = REQUIRES
    takes_native: ClassVar[bool] = True

    iou: Annotated[float, Bounds(min=0, max=1)] = 0.5
    """Minimum intersection over union of a box that counts as found."""
    max_tokens: Count = 48
    """Maximum number of tokens of an answer."""
    num_questions: Count | None = None
    """Number of questions for a box, the first of the split; by default all."""
    blind: bool = True
    """Whether to answer a second time without the video."""
    batch_size: Count = 16
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective answers, and the data are conversations."""
        model_of(subject)

    def lacking(self, source: Source, data: Data) -> str | None:
        """Some questions of the split are for a box."""
        for split in self.splits_of(data):
            if not any(_box_of(sample) for sample in source.split(split)):
                return f"AnsweredBoxes needs answers with one box, and no one of the split {split!r} has that"
        return super().lacking(source, data)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``accuracy`` and that of every kind, ``mean_iou`` and ``unreadable`` (the share of answers without a
        box), the same after ``blind/``, and ``count``.

        Raises:
            UserError: the objective does not answer, or no question for a box can be read.
        """
        model = model_of(subject)
        source = cast(ConversationSource, subject.source)
        asking = replace(source, samples=tuple(sample for sample in source.samples if _box_of(sample)))

        def judged(batch: Batch, samples: Sequence[ConversationSample], serialiser: Serialiser) -> list[Tensor]:
            asked = on_device(prompts(serialiser, [s.dialogue.turns[:-1] for s in samples]), subject.device)
            wanted = [_box_of(sample) for sample in samples]
            visual = model.watch(batch)
            found = []
            for seen in (visual, visual * 0)[: 1 + self.blind]:
                said = answers(model, seen, asked, serialiser, count=self.max_tokens)
                found.append(torch.tensor([_overlap(text, box) for text, box in zip(said, wanted, strict=True)]))
            return found

        where = replace(subject, source=asking)
        kinds, found = asked_of(where, judged, self.split, self.batch_size, self.num_questions)
        for name, overlaps in found.items():
            yield from shares(name, kinds, (overlaps >= self.iou).double())
            yield f"{name}mean_iou", float(overlaps.clamp(min=0).mean())
            yield f"{name}unreadable", float((overlaps < 0).double().mean())
        yield "count", float(len(kinds))


def _box_of(sample: object) -> Box | None:
    """The box that a conversation's last answer is about; none if it has none, or several."""
    if not isinstance(sample, ConversationSample):
        return None
    boxes = boxes_in(sample.dialogue.turns[-1].text)
    return boxes[0] if len(boxes) == 1 else None


def _overlap(text: str, wanted: Box | None) -> float:
    """Intersection over union of the first box in a text and another; -1 for a text without one."""
    said = boxes_in(text)
    if not said or wanted is None:
        return -1.0
    return float(overlap(torch.tensor(said[0], dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)))
