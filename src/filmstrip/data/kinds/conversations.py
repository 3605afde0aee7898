"""Conversations about videos and images: clips, with the ids of what is said and which of them are learnt."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.actions import ActionSpace
from filmstrip.data.annotations.dialogues import SHOWN, Dialogue, files_of, read_dialogues
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.sample import Sample, Source, hold_out
from filmstrip.data.texts import TEXT, TEXT_LENGTH, Vocabulary
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.text.conversation import HUB, TEMPLATES, Serialiser, Turn
from filmstrip.text.tokenizers import SPECIALS, Saved, TextTokenizer, TextTokenizerConfig, Words

log = logging.getLogger(__name__)

SPECIFICATION = Specification(
    {
        "video": replace(clips.VIDEO, padding=0),
        **clips.NATIVE,
        "text": replace(TEXT, padding=0, unmixed="conversations"),
        "text_length": TEXT_LENGTH,
        "learnt": of("B L", torch.bool, "whether the assistant says the token", padding=0),
        **COMMON,
    }
)
Format = Literal["plain", "caption", "v0", "v1", "hub"]


@dataclass(frozen=True, kw_only=True)
class Conversations(Kind):
    """Conversations about one image or video each, or about none.

    ``data.path`` is a file in the layout of LLaVA, ShareGPT4V or LLaVA-Video (JSON, JSON Lines), a table with the
    columns ``video``, ``question`` and ``answer`` (CSV), or a folder with such a file called ``dialogues``, or with
    ``train`` and ``test``. An image is a video that stands still.
    """

    specification: ClassVar[Specification] = SPECIFICATION

    media: Path | None = None
    """Folder of the images and videos that the file names; by default the folder of the file."""
    missing: Literal["refuse", "skip"] = "refuse"
    """Whether conversations whose image or video is not there are refused, or skipped with a warning."""
    tokenizer: TextTokenizerConfig = field(default_factory=Words)
    """Tokenizer of the texts."""
    format: Format = "plain"
    """Format of conversations, of ``filmstrip.text.conversation``; ``hub`` is that of a published tokenizer."""
    max_length: Count = 2048
    """Maximum number of tokens of a conversation, of which a visual takes ``visual_tokens``; the oldest text of a
    longer one is cut."""
    visual_tokens: Count = 1
    """Number of tokens that a visual takes in the language model, for ``max_length``."""

    def as_recorded(self, folder: Path) -> Self:
        """See :meth:`Kind.as_recorded`: with the tokenizer of the run."""
        return replace(self, tokenizer=Saved(folder=str(folder)))

    def open(self, data: Data) -> ConversationSource:
        """The conversations of ``data.path``, or of a synthetic dataset.

        Raises:
            UserError: there are none, a file is damaged, images or videos are missing, or a conversation cannot be
                learnt from; the message lists the first of them.
        """
        if data.path is None and data.synthetic is None:
            raise UserError("no data was provided: set data.path to a file of conversations (--data PATH)")
        path = data.synthetic.generate() if data.path is None and data.synthetic else Path(data.path or ".")
        return _open(self, path.expanduser(), data.train_split)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of ``data.clip``, and the longest text."""
        clip = data.clip
        length = max(1, self.max_length - self.visual_tokens + 1)
        frames = {"T": clip.num_frames, "C": 3, "H": clip.size, "W": clip.size}
        return frames | clips.native_sizes(clip) | {"L": length}

    def told_sizes(self, data: Data, info: ConversationInfo) -> dict[str, int]:
        """Those of :meth:`sizes`."""
        return self.sizes(data, None)

    def shown(self, data: Data) -> str:
        """Number of frames and their size."""
        return f"conversations about {data.clip.num_frames} frames of {data.clip.size} x {data.clip.size} pixels"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> ConversationInfo:
        """See :meth:`Kind.example_info`."""
        return ConversationInfo(**told, tokenizer=_EXAMPLE, stop=(_EXAMPLE.end,))

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Clips whose brightness is asked for and answered; see :meth:`Kind.example`."""
        batch = clips.draw_clips({**sizes, "K": _ANSWERS, "A": 0}, generator)
        answer = batch.pop("label")
        scale = (answer + 1).view(-1, 1, 1, 1, 1) / _ANSWERS
        batch["video"] = (batch["video"] * scale).to(torch.uint8)
        first = _EXAMPLE.size - _ANSWERS
        asked = torch.full_like(answer, first - 1)
        video = torch.full_like(answer, _EXAMPLE.special("<video>"))
        start, end = torch.full_like(answer, 1), torch.full_like(answer, _EXAMPLE.end)
        text = torch.stack([start, video, asked, first + answer, end], dim=1)
        learnt = torch.tensor([False, False, False, True, True]).repeat(len(answer), 1)
        return batch | {"text": text, "text_length": torch.full_like(answer, 5), "learnt": learnt}


_ANSWERS = 8
_EXAMPLE = Vocabulary.drawn(6 + _ANSWERS, SPECIALS)
"""Vocabulary of the drawn example: special tokens, a question, and answers."""


@dataclass(frozen=True, kw_only=True)
class ConversationInfo(DataInfo):
    """Properties of conversations that objectives need."""

    tokenizer: Vocabulary
    """Vocabulary of the conversations."""
    stop: tuple[int, ...]
    """Ids that end what the assistant says."""


@dataclass(frozen=True, kw_only=True)
class ConversationSample(Sample):
    """One conversation."""

    kind: ClassVar[type[Kind]] = Conversations

    dialogue: Dialogue = field(repr=False)
    serialiser: Serialiser = field(repr=False, compare=False)

    @property
    def specification(self) -> Specification:
        """Text is padded with the tokenizer's own id."""
        text = replace(SPECIFICATION.keys["text"], padding=self.serialiser.tokenizer.pad)
        return Specification({**SPECIFICATION.keys, "text": text})

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """Clips as of any video, with the conversation; black frames, of which no text speaks, where there is none.

        Raises:
            DecodeError, OSError: the image or video cannot be read.
        """
        if self.dialogue.visual is None:
            frames, side, native = data.clip.num_frames, data.clip.size, data.clip.native
            size = (side, side) if native is None else native.size_of(frames, side, side)
            black = Row(content={"video": torch.zeros((frames, 3, *size), dtype=torch.uint8)}, times=(0.0, 0.0))
            return self._told(clips.with_sizes([black] * (num_clips * num_crops), data.clip))
        return self._told(clips.cut(self, data, rng=rng, num_clips=num_clips, num_crops=num_crops))

    @classmethod
    def cut_in_turn(
        cls, samples: Sequence[Self], data: Data, num_clips: int = 1, num_crops: int = 1
    ) -> list[list[Row]]:
        """Conversations about one file share one opening of it."""
        if samples[0].dialogue.visual is None:
            return [sample.cut(data, num_clips=num_clips, num_crops=num_crops) for sample in samples]
        found = clips.cut_in_turn(samples, data, num_clips, num_crops)
        return [sample._told(rows) for sample, rows in zip(samples, found)]

    def _told(self, rows: Sequence[Row]) -> list[Row]:
        ids, learnt = self.serialiser.mark(self.dialogue.turns, self.name)
        told: dict[str, Tensor] = {
            "text": torch.tensor(ids),
            "text_length": torch.tensor(len(ids)),
            "learnt": torch.tensor(learnt),
        }
        return [replace(row, content={**row.content, **told}) for row in rows]


@dataclass(frozen=True, kw_only=True)
class ConversationSource(Source):
    """Conversations, with the tokenizer of their texts."""

    kind: ClassVar[type[Kind]] = Conversations

    serialiser: Serialiser = field(compare=False)

    def info(self, train_split: str) -> ConversationInfo:
        """Properties of the collection that an objective needs before it is built."""
        return ConversationInfo(
            **self.told(train_split),
            tokenizer=Vocabulary.of(self.serialiser.tokenizer, SPECIALS),
            stop=self.serialiser.stop,
        )

    def record(self, folder: Path) -> None:
        """Write the tokenizer into a run folder."""
        self.serialiser.tokenizer.save(folder)


def serialiser_of(config: Conversations, tokenizer: TextTokenizer) -> Serialiser:
    """What turns conversations into ids, for a tokenizer that was fitted or opened."""
    return Serialiser(tokenizer, config.format, max_length=config.max_length, visual_tokens=config.visual_tokens)


def _open(config: Conversations, path: Path, train_split: str) -> ConversationSource:
    files = files_of(path)
    root = path if path.is_dir() else path.parent
    media = Path(config.media).expanduser() if config.media is not None else root
    found = [dialogue for file in files for dialogue in read_dialogues(file)]
    found = _there(found, media, config.missing, path)
    samples = [
        ConversationSample(
            path=str(media / d.visual) if d.visual is not None else str(path),
            name=d.name,
            split=d.split,
            group=d.visual or d.name,
            start=d.start,
            end=d.end,
            dialogue=d,
            serialiser=None,  # type: ignore[arg-type]  # its tokenizer depends on which are for training
        )
        for d in found
    ]
    if not any(sample.split for sample in samples):
        samples = hold_out(samples)
    texts = [turn.text for s in samples if s.split == train_split for turn in s.dialogue.turns]
    around = TEMPLATES[config.format].texts if config.format != HUB else ()
    serialiser = serialiser_of(config, config.tokenizer.fit([*texts, *around]))
    _check_lengths([sample.dialogue for sample in samples], serialiser, path)
    return ConversationSource(
        root=root,
        classes=(),
        samples=tuple(replace(sample, serialiser=serialiser) for sample in samples),
        directional=True,
        serialiser=serialiser,
    )


def _there(found: list[Dialogue], media: Path, missing: str, path: Path) -> list[Dialogue]:
    """The conversations whose visuals are there.

    Raises:
        UserError: some are not, and they are not to be skipped, or none is.
    """
    known = {d.visual: os.path.exists(media / d.visual) for d in found if d.visual is not None}
    absent = [visual for visual, there in known.items() if not there]
    if not absent:
        return found
    said = f"{len(absent)} of {len(known)} images and videos of {path} are not in {media}, such as "
    said += ", ".join(absent[:SHOWN])
    if missing == "refuse" or len(absent) == len(known):
        raise UserError(
            f"{said}: name their folder (--data.reads.media FOLDER), or skip them (--data.reads.missing skip)"
        )
    log.warning("%s; their conversations are skipped", said)
    return [d for d in found if d.visual is None or known[d.visual]]


def _check_lengths(dialogues: Sequence[Dialogue], serialiser: Serialiser, path: Path) -> None:
    """See that every conversation that may be too long keeps an answer; a token is at least a byte.

    Raises:
        UserError: some do not.
    """
    errors = []
    for d in dialogues:
        most = sum(len(turn.text.encode()) for turn in d.turns) + 64 * len(d.turns) + 256 + serialiser.visual_tokens
        if serialiser.max_length is not None and most > serialiser.max_length:
            try:
                serialiser.mark(d.turns, d.name)
            except UserError as error:
                errors.append(str(error))
    if errors:
        shown = "\n".join(f"  {error}" for error in errors[:SHOWN])
        more = f"\n  and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise UserError(f"{path}: {len(errors)} conversations are too long to learn from:\n{shown}{more}")


def prompts(serialiser: Serialiser, conversations: Sequence[Sequence[Turn]]) -> Batch:
    """The ``text`` and ``text_length`` of conversations that end with a question, up to where its answer begins."""
    return _padded([serialiser.prompt(turns) for turns in conversations], serialiser.tokenizer.pad)


def with_answers(serialiser: Serialiser, conversations: Sequence[Sequence[Turn]], answers: Sequence[str]) -> Batch:
    """The same conversations with an answer each, which alone is ``learnt``."""
    begun = [serialiser.prompt(turns) for turns in conversations]
    said = [serialiser.answer(answer) for answer in answers]
    batch = _padded([[*a, *b] for a, b in zip(begun, said, strict=True)], serialiser.tokenizer.pad)
    at = torch.arange(batch["text"].shape[1])
    first = torch.tensor([len(ids) for ids in begun])[:, None]
    return batch | {"learnt": (at >= first) & (at < batch["text_length"][:, None])}


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Batch:
    length = max(map(len, rows))
    text = torch.tensor([[*ids, *[pad] * (length - len(ids))] for ids in rows])
    return {"text": text, "text_length": torch.tensor([len(ids) for ids in rows])}


def turns_of(question: str, history: Sequence[Turn] = ()) -> list[Turn]:
    """The turns of a question about one visual, which stands first, after those that were said before."""
    return [*history, Turn("user", question if history else f"<video>\n{question}")]
