"""Captions of videos, in the words of a captioner or of a language model that sees, against the given ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, NotEmpty
from filmstrip.data.config import Data
from filmstrip.data.kinds.captioned import CaptionedSource
from filmstrip.data.kinds.conversations import ConversationSample, ConversationSource, prompts, turns_of
from filmstrip.data.reading.loader import EvalLoader
from filmstrip.data.sources import Source
from filmstrip.errors import UserError
from filmstrip.evals.answers import answers
from filmstrip.evals.caption_scores import METRICS, Metric, caption_scores, check_metrics
from filmstrip.evals.distributed import map_batches
from filmstrip.inference import inference, on_device
from filmstrip.nn.decoding import Writing
from filmstrip.protocols import Answers, Batch, Captioner, Objective
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.text.conversation import Serialiser
from filmstrip.text.tokenizers import TextTokenizer

BEAMS = 3
"""Number of beams of captions that are not drawn, as BLIP's."""


class CaptionWriter(NamedTuple):
    """How a captioner's captions are written."""

    model: Captioner
    tokenizer: TextTokenizer
    prompt: str
    """Beginning of every caption, which is no part of it."""
    writing: Writing

    def see(self, video: Tensor) -> Tensor:
        """What is seen of ``B T C H W`` video."""
        return self.model.see(video)

    def write(self, visual: Tensor, seeds: Tensor | None = None) -> list[str]:
        """A caption of each, drawn from ``seeds`` (``B``)."""
        seed = _first(visual, seeds)
        end, begun = self.tokenizer.end, self.tokenizer.encode(self.prompt)
        ids = self.model.caption(visual, begun, end=end, seed=seed, writing=self.writing).tolist()
        return [self.tokenizer.decode(row[: row.index(end)] if end in row else row).strip() for row in ids]


class AnswerWriter(NamedTuple):
    """How a language model's captions are written: it is asked for them."""

    model: Answers
    serialiser: Serialiser
    question: str
    writing: Writing

    def see(self, video: Tensor) -> Tensor:
        """What is seen of ``B T C H W`` video."""
        return self.model.see(video)

    def write(self, visual: Tensor, seeds: Tensor | None = None) -> list[str]:
        """A caption of each, drawn from ``seeds`` (``B``)."""
        seed = _first(visual, seeds)
        turns = turns_of(self.question, question_first=self.serialiser.question_first)
        asked = on_device(prompts(self.serialiser, [turns] * len(visual)), visual.device)
        count, sampling = self.writing.max_tokens, self.writing.sampling
        return answers(self.model, visual, asked, self.serialiser, count=count, seed=seed, sampling=sampling)


Writer = CaptionWriter | AnswerWriter


def _first(visual: Tensor, seeds: Tensor | None) -> int | Tensor:
    """What gives rows these seeds when their numbers are added to it."""
    rows = torch.arange(len(visual), device=visual.device)
    return 0 if seeds is None else seeds.to(visual.device) - rows


def writer_of(
    objective: Objective, text: TextTokenizer | Serialiser, *, prompt: str, writing: Writing, beams: int | None
) -> Writer:
    """How a model's captions are written; ``text`` is the tokenizer of captions, or the format of conversations.

    Without ``beams``, a captioner that draws nothing has :data:`BEAMS`.

    Raises:
        UserError: it writes none, or not in this way.
    """
    if isinstance(objective, Captioner) and not isinstance(text, Serialiser):
        drawn = writing.sampling.temperature > 0
        if drawn and beams not in (None, 1):
            raise UserError("beams search for the most probable captions, and a temperature draws them: give one")
        chosen = beams or (1 if drawn else BEAMS)
        return CaptionWriter(objective, text, prompt, replace(writing, beams=chosen))
    if isinstance(objective, Answers) and isinstance(text, Serialiser):
        if beams not in (None, 1) or writing.min_tokens or writing.repetition != 1.0:
            raise UserError(
                f"{type(objective).__name__} is a language model, whose captions have no beams, no minimum length "
                "and no factor of repetitions: leave these out"
            )
        return AnswerWriter(objective, text, prompt, writing)
    raise UserError(
        f"{type(objective).__name__} writes no captions: give a captioner (language.blip, language.blip2) or a "
        "language model that sees (language.llava)"
    )


@dataclass(frozen=True, kw_only=True)
class Captions(Evaluation):
    """Scores of written captions against the given ones: CIDEr, BLEU, ROUGE-L, METEOR, and the share that is equal.

    A clip's captions are its references; of conversations, the answers about one video. The same with the video
    hidden is the blind baseline: what is written of every video alike.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "text"})

    metrics: Annotated[tuple[Metric, ...], NotEmpty] = METRICS
    """Scores; all but ``exact`` need pycocoevalcap, and METEOR needs Java too."""
    prompt: str = ""
    """Beginning of a captioner's captions; a language model is asked what the conversations ask."""
    min_tokens: CountOrZero = 0
    """Minimum number of tokens of a caption."""
    max_tokens: Count = 20
    """Maximum number of tokens of a caption."""
    beams: Count | None = None
    """Number of beams; by default 3 for a captioner."""
    num_clips: Count | None = None
    """Number of clips, the first of the split; by default all."""
    blind: bool = True
    """Whether to write a second time without the video."""
    batch_size: Count = 16
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""

    def check(self, subject: Subject) -> None:
        """The objective writes captions, the data have some, and the packages are there."""
        self._writer(subject, "")
        check_metrics(self.metrics)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``captions/cider``, ... and the same after ``blind/``.

        Raises:
            UserError: as :meth:`check`, or no video can be read.
        """
        self.check(subject)
        split = self.split or subject.data.eval_split
        samples = subject.source.split(split)
        loader = EvalLoader(subject.source, subject.data, split, batch_size=self.batch_size)

        def of_batch(batch: Batch, before: int) -> list[tuple[int, list[str]]]:
            places = batch["index"].tolist()
            video = on_device({"video": batch["video"]}, subject.device)["video"]
            # Clips that are asked the same thing are described together.
            asked: dict[str, list[int]] = {}
            for row, place in enumerate(places):
                asked.setdefault(_question(samples[place]), []).append(row)
            said: dict[int, list[str]] = {place: [] for place in places}
            with inference(subject.objective):
                for question, rows in asked.items():
                    writer = self._writer(subject, question)
                    visual = writer.see(video[rows])
                    for seen in (visual, visual * 0)[: 1 + self.blind]:
                        for row, text in zip(rows, writer.write(seen)):
                            said[places[row]].append(text)
            return list(said.items())

        found: dict[int, list[str]] = {}
        for part in map_batches(subject, loader, of_batch, max_rows=self.num_clips):
            found |= dict(part)
        if not found:
            raise UserError(f"no video of the split {split!r} of {subject.source.root} can be read")
        references = _references(subject.source, [samples[place] for place in found])
        for i, name in enumerate(("captions/", "captions/blind/")[: 1 + self.blind]):
            for metric, value in caption_scores([said[i] for said in found.values()], references, self.metrics):
                yield f"{name}{metric}", value
        yield "captions/count", float(len(found))

    def lacking(self, source: Source, data: Data) -> str | None:
        """Every clip of the split has a caption."""
        for split in self.splits_of(data):
            if any(isinstance(s, ConversationSample) and s.several for s in source.split(split)):
                return f"Captions describes one image or video, and conversations of {source.root} may have several"
            without = [s.name for s in source.split(split) if not isinstance(s, ConversationSample) and not s.text]
            if without:
                return f"Captions needs captions, and {without[0]} of {source.root} has none"
        return super().lacking(source, data)

    def _writer(self, subject: Subject, question: str) -> Writer:
        source = subject.source
        if not isinstance(source, CaptionedSource | ConversationSource):
            raise UserError(f"{source.root} was read without captions: use --data.reads captioned")
        text: Any = source.text_tokenizer if isinstance(source, CaptionedSource) else source.serialiser
        writing = Writing(min_tokens=self.min_tokens, max_tokens=self.max_tokens)
        return writer_of(subject.objective, text, prompt=question or self.prompt, writing=writing, beams=self.beams)


def _question(sample: Any) -> str:
    """What is asked for in a conversation, its first question; nothing of a captioned clip."""
    if not isinstance(sample, ConversationSample):
        return ""
    return sample.dialogue.turns[0].text.replace("<video>", "").replace("<image>", "").strip()


def _references(source: Source, samples: Sequence[Any]) -> list[list[str]]:
    """The captions of each clip; of conversations, what is answered to the same question about the same video."""
    if not isinstance(source, ConversationSource):
        return [list(sample.text) for sample in samples]
    told: dict[tuple[Any, ...], list[str]] = {}
    keys = []
    for sample in cast("Sequence[ConversationSample]", samples):
        keys.append((sample.path, sample.start, sample.end, _question(sample)))
        told.setdefault(keys[-1], []).append(sample.dialogue.turns[1].text)
    return [told[key] for key in keys]
