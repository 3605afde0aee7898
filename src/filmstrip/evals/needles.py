"""Needles in a haystack: what a language model finds in long texts, or in long videos, by length and depth.

Videos are in ``video_needles.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import numpy as np

from filmstrip.bounds import Count, NotEmpty, Seed
from filmstrip.data.config import Data
from filmstrip.data.kinds.conversations import ConversationSource
from filmstrip.data.kinds.documents import DocumentSource
from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError
from filmstrip.evals.distributed import map_items
from filmstrip.evals.needle_grid import Cell, Unit
from filmstrip.evals.video_needles import CHANCE, find, haystack
from filmstrip.inference import inference
from filmstrip.protocols import Answers, TextWriter
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.runs.text_models import written
from filmstrip.text.conversation import Serialiser, Turn
from filmstrip.text.documents import read_documents
from filmstrip.text.haystack import CITIES, NUM_CITIES, Filler, Needle, answer, draw_needles, found, hide, question
from filmstrip.text.tokenizers import TextTokenizer

SPARE = 8
"""Number of tokens that an answer may have beyond the right one."""


class Format(NamedTuple):
    """How a model is asked, and when its answer ends."""

    tokenizer: TextTokenizer
    ask: Callable[[str], list[int]]
    """The ids of a prompt."""
    stop: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Needles(Evaluation):
    """Share of the numbers of cities that a language model of text finds in long texts which hide them; of one that
    sees, share of the colours of odd things that it finds in long videos.

    Texts have exactly as many tokens as is asked for, or less than a sentence fewer, question included; videos as
    many frames, or less than a scene fewer. With several ``needles`` the depth is that of the first one that is asked
    for, and the others lie anywhere.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"text"})
    takes_native: ClassVar[bool] = True

    lengths: Annotated[tuple[Count, ...], NotEmpty] = (128, 256)
    """Numbers of tokens of a text with its question, or of frames of a video."""
    depths: Count = 5
    """Number of depths, evenly from the beginning to the end."""
    rounds: Count = 10
    """Number of texts or videos for each length and depth."""
    needles: Count = 1
    """Number of numbers that a text hides, or of odd things that a video does."""
    asked: Count = 1
    """Number of these that are asked for."""
    digits: Count = 7
    """Number of digits of a number in texts."""
    cities: Count = NUM_CITIES
    """Number of different cities in texts, the first of the alphabet."""
    texts: Path | None = None
    """Text files to hide numbers in: a file or a folder (.txt, .md, .jsonl, .parquet); by default sentences of a
    small grammar."""
    column: str = "text"
    """Name of the texts in records."""
    batch_size: Count = 4
    seed: Seed = 0

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """None: texts are made here."""
        return ()

    def check(self, subject: Subject) -> None:
        """The objective writes text or answers questions about videos, and needles can be asked for.

        Raises:
            UserError: the objective is no language model, more needles are asked for than are hidden, a length has no
                room for them, or texts are given to a model that sees.
        """
        if not isinstance(subject.objective, TextWriter | Answers):
            raise UserError(
                f"{type(subject.objective).__name__} neither writes text nor answers questions: give a run of "
                "language.*"
            )
        if self.asked > self.needles:
            raise UserError(
                f"{self.asked} needles are asked for, and {self.needles} are hidden: hide more (--needles)"
            )
        if self._of_videos(subject):
            if self.texts is not None:
                raise UserError(f"{type(subject.objective).__name__} is asked about videos: leave out texts")
            for cell in self.grid("frames"):
                haystack(cell, needles=self.needles, asked=self.asked)
            return
        how = format_of(subject)
        for cell in self.grid()[:: self.depths]:
            self.text(how, Filler(), cell, 0)

    def grid(self, unit: Unit = "tokens") -> list[Cell]:
        """All places, length by length."""
        depths = np.linspace(0, 1, self.depths) if self.depths > 1 else np.array([0.5])
        return [Cell(length, float(depth), unit) for length in self.lengths for depth in depths]

    @staticmethod
    def _of_videos(subject: Subject) -> bool:
        """Whether the model sees, and its data are conversations about videos."""
        return isinstance(subject.objective, Answers) and "video" in subject.source.gives

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``found/LENGTH/DEPTH`` of every place, ``found/LENGTH`` and ``found``; beside them ``oracle``, the
        right answers read as the model's are, and ``chance``, a guess of as many digits or of a colour. Of videos
        names have ``LENGTH_frames``, and ``blind`` is what the model finds that is shown none.

        Raises:
            UserError: see :meth:`check`, or there are no texts, or fewer than a length asks for.
        """
        self.check(subject)
        if self._of_videos(subject):
            yield from self._in_videos(subject)
            return
        how = format_of(subject)
        filler = self._filler(how.tokenizer)
        cells, shares, oracle = self.grid(), [], []
        for cell, (share, ideal) in zip(
            cells, map_items(subject, cells, partial(self._of_cell, subject, how, filler))
        ):
            shares.append(share)
            oracle.append(ideal)
            yield cell.name, share
        for length in self.lengths:
            yield f"found/{length}", float(np.mean([s for s, cell in zip(shares, cells) if cell.length == length]))
        yield "found", float(np.mean(shares))
        yield "oracle", float(np.mean(oracle))
        yield "chance", 1 / (10**self.digits - 10 ** (self.digits - 1))

    def _in_videos(self, subject: Subject) -> Iterator[tuple[str, float]]:
        cells = self.grid("frames")
        seen = find(
            subject,
            cells,
            rounds=self.rounds,
            needles=self.needles,
            asked=self.asked,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        yield from seen.shares.items()
        for name in dict.fromkeys(cell.of_length for cell in cells):
            yield name, float(np.mean([seen.shares[cell.name] for cell in cells if cell.of_length == name]))
        yield "found", float(np.mean(list(seen.shares.values())))
        yield "oracle", seen.oracle
        yield "blind", seen.blind
        yield "chance", CHANCE

    def _filler(self, tokenizer: TextTokenizer) -> Filler:
        if self.texts is None:
            return Filler()
        documents = read_documents(self.texts.expanduser(), self.column)
        filler, found = Filler.of([document.text for document in documents]), 0
        for sentence in filler.sentences:
            found += len(tokenizer.encode(f" {sentence}"))
            if found >= max(self.lengths):
                return filler
        raise UserError(
            f"the texts in {self.texts} have {found} tokens, and a length of {max(self.lengths)} is asked for, in "
            "which they would repeat: give more of them (--texts), or shorter lengths (--lengths)"
        )

    def text(self, how: Format, filler: Filler, cell: Cell, number: int) -> tuple[list[int], list[Needle]]:
        """The ids of a prompt, and the needles that it asks for.

        Raises:
            UserError: the length has no room for the needles and the question.
        """
        rng = np.random.default_rng(derive_seed("needles", self.seed, cell.name, number))
        needles = draw_needles(rng, self.needles, self.digits, CITIES[: self.cities])
        depths, asked = [cell.depth, *rng.random(self.needles - 1)], needles[: self.asked]

        def prompt(sentences: Sequence[str]) -> list[int]:
            return how.ask(f"{hide(sentences, needles, depths)}\n{question(asked)}")

        taken = len(prompt(()))
        if taken > cell.length:
            raise UserError(
                f"{self.needles} needles and the question take {taken} tokens, and a text is to have {cell.length}: "
                "give longer texts (--lengths), or fewer needles or digits"
            )
        sentences: list[str] = []
        for sentence in filler.draw(rng):
            taken += len(how.tokenizer.encode(f" {sentence}"))
            if taken > cell.length:
                break
            sentences.append(sentence)
        while len(ids := prompt(sentences)) > cell.length:  # pieces of words may differ at borders
            sentences.pop()
        return ids, asked

    def _of_cell(self, subject: Subject, how: Format, filler: Filler, cell: Cell) -> tuple[float, float]:
        """The share of needles that the model finds at a place, and that its right answers have."""
        model = subject.objective
        assert isinstance(model, TextWriter), "seen to by check"
        hits: list[bool] = []
        ideal: list[bool] = []
        made = [self.text(how, filler, cell, number) for number in range(self.rounds)]
        for first in range(0, self.rounds, self.batch_size):
            prompts, asked = zip(*made[first : first + self.batch_size])
            right = [how.tokenizer.encode(answer(each)) for each in asked]
            with inference(subject.objective):
                said = written(
                    model,
                    prompts,
                    stops=(how.stop,),
                    pad=how.tokenizer.pad,
                    count=SPARE + max(map(len, right)),
                    device=subject.device,
                )
            for own, ids, truth in zip(said, right, asked):
                hits += found(how.tokenizer.decode(own), truth)
                ideal += found(how.tokenizer.decode(ids), truth)
        return float(np.mean(hits)), float(np.mean(ideal))


def format_of(subject: Subject) -> Format:
    """How a model is asked: in the format of its conversations, or at the end of a document.

    Raises:
        UserError: its data are no text.
    """
    source, reads = subject.source, subject.data.reads
    if isinstance(source, ConversationSource):
        # Without the limit of its conversations: texts may be longer than any of these.
        serialiser = Serialiser(source.serialiser.tokenizer, reads.format)  # type: ignore[attr-defined]
        return Format(serialiser.tokenizer, lambda text: serialiser.prompt([Turn("user", text)]), serialiser.stop)
    if not isinstance(source, DocumentSource):
        raise UserError(f"{source.root} holds no text: give documents or conversations (--data.reads)")
    tokenizer = source.text_tokenizer
    begun = [] if source.starts is None else [source.starts]
    return Format(tokenizer, lambda text: [*begun, *tokenizer.encode(f"{text}\n")], (tokenizer.end,))
