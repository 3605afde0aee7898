"""Videos and images among text, of which both are learnt: pairs of captions, conversations, and text alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from filmstrip.bounds import Count
from filmstrip.data.actions import ActionSpace
from filmstrip.data.annotations.dialogues import SUFFIXES, Dialogue
from filmstrip.data.config import Data
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.kinds.conversations import (
    ConversationInfo,
    Conversations,
    ConversationSample,
    ConversationSource,
    Format,
    padded,
    serialiser_of,
)
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import Specification
from filmstrip.data.sample import Sample, hold_out
from filmstrip.data.texts import Vocabulary
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.text.conversation import TEMPLATES, Serialiser, Turn
from filmstrip.text.documents import PLAIN, read_documents
from filmstrip.text.tokenizers import SPECIALS, UNKNOWN, VIDEO, TextTokenizer

Order = Literal["drawn", "text_first", "vision_first"]
AROUND = ("<vision>", "</vision>")
"""Text before and after the codes of a video or an image."""
REQUEST = "Generate {} of {}"
_IMAGE, _VIDEO = "an image", "a video"


@dataclass(frozen=True, kw_only=True)
class VisionText(Conversations):
    """Videos and images with text, for a language model that reads and writes both.

    ``data.path`` is captioned videos (a manifest with a column ``caption``, or shards with ``key.txt``), a file of
    conversations about videos, or plain text, in documents (``.txt``, ``.md``, or JSON Lines with a ``text``). A
    mixture of such sources shares rows, too (``pack``), each source's apart.
    """

    visual_text: ClassVar[tuple[str, str]] = AROUND
    question_first: ClassVar[bool] = True
    specification: ClassVar[Specification] = Conversations.specification

    format: Format = "lwm"
    """Format of conversations and of requests, of ``filmstrip.text.conversation``."""
    visuals: Count = 8
    """Maximum number of images and videos of a conversation."""
    order: Order = "drawn"
    """Order of caption and video in a pair: drawn anew in each pass, or always the same."""
    requests: bool = False
    """Whether captions are what a user asks for, and videos what the assistant answers, in place of bare pairs."""
    conversations: bool = False
    """Whether conversations are read of a folder that has captions, too."""

    def open(self, data: Data) -> VisionTextSource:
        """The examples of ``data.path``, or of a synthetic dataset.

        Raises:
            UserError: there are none, or a file is damaged; or no example is short enough.
        """
        if data.path is None and data.synthetic is None:
            raise UserError("no data was provided: set data.path to captioned videos (--data PATH)")
        path = data.path
        if path is None and data.synthetic is not None:
            path = data.synthetic.generate()
        path = Path(path or ".").expanduser()
        if _is_text(path):
            return self._of_texts(path, data.train_split)
        if self.conversations or path.suffix.lower() in SUFFIXES[:2]:
            found = super().open(data)
            _check_marks(found.text_tokenizer)
            samples = [_question_first(sample) for sample in found.samples]
            return _source(found.root, tuple(samples), found.text_tokenizer)
        return self._of_pairs(data.at(path), path)

    def _of_pairs(self, data: Data, path: Path) -> VisionTextSource:
        source = Clips(actions=False).open(data)
        captioned = [sample for sample in source.samples if sample.text]
        if source.kind is not Clips or not captioned:
            raise UserError(
                f"{path} has no captions: expected a manifest with a column caption, shards with key.txt beside "
                f"key.mp4, a file of conversations ({', '.join(SUFFIXES[:2])}), or text ({', '.join(PLAIN)})"
            )
        texts = [text for sample in captioned if sample.split == data.train_split for text in sample.text]
        serialiser = self._serialiser([*texts, REQUEST.format(_IMAGE, _VIDEO)])
        samples = tuple(_pair(sample, serialiser, self) for sample in captioned)
        return _source(source.root, samples, serialiser.tokenizer)

    def _of_texts(self, path: Path, train_split: str) -> VisionTextSource:
        documents = [Sample(path=str(path), name=d.name, split=d.split, text=(d.text,)) for d in read_documents(path)]
        if not any(sample.split for sample in documents):
            documents = hold_out(documents)
        texts = [sample.text[0] for sample in documents if sample.split == train_split]
        serialiser = self._serialiser(texts)
        samples = tuple(part for sample in documents for part in _parts(sample, serialiser, self))
        return _source(path, samples, serialiser.tokenizer)

    def _serialiser(self, texts: Sequence[str]) -> Serialiser:
        around = (*AROUND, *(TEMPLATES[self.format].texts if self.format in TEMPLATES else ()))
        found = serialiser_of(self, self.tokenizer.fit([*texts, *around]))
        _check_marks(found.tokenizer)
        return found

    def with_frame_tokens(self, tokens: int, each: int, clip_frames: int) -> VisionText:
        """This kind, told how many ``tokens`` a step of time takes that stands for ``each`` frames, and of how many
        frames videos are."""
        steps = -(-clip_frames // each)
        return replace(self, visual_tokens=steps * tokens, image_tokens=tokens)

    def prompts(self, tokenizer: TextTokenizer, texts: Sequence[str], frames: int) -> tuple[Batch, ...]:
        """Where videos of so many frames begin that follow texts: for first frames, and for whole videos.

        Each is a batch of ``text`` and ``text_length``, a row for each text.
        """
        serialiser = serialiser_of(self, tokenizer)
        kinds = (_IMAGE,) if frames == 1 else (_IMAGE, _VIDEO) if self.requests else (_VIDEO,)
        found = []
        for kind in kinds:
            rows = []
            for text in texts:
                if self.requests:
                    begun = serialiser.prompt([Turn("user", REQUEST.format(kind, text))])
                else:
                    begun = [*_start(tokenizer), *tokenizer.encode(text)]
                rows.append([*begun, *tokenizer.encode(AROUND[0])])
            found.append(padded(rows, tokenizer.pad))
        return tuple(found)

    def shown(self, data: Data) -> str:
        """Number of frames and their size."""
        return f"text and videos of {data.clip.num_frames} frames of {data.clip.size} x {data.clip.size} pixels"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> VisionTextInfo:
        """See :meth:`Kind.example_info`."""
        return VisionTextInfo(**told, tokenizer=_EXAMPLE, stop=(_EXAMPLE.end,), begin=_BEGIN, end=_END)

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Clips whose brightness a word says, before the clip or after it; see :meth:`Kind.example`."""
        batch = clips.draw_clips({**sizes, "K": _WORDS, "A": 0}, generator)
        word = batch.pop("label")
        scale = (word + 1).view(-1, 1, 1, 1, 1) / _WORDS
        batch["video"] = (batch["video"] * scale).to(torch.uint8)
        place = [*_BEGIN, _EXAMPLE.special(VIDEO), *_END]
        rows = []
        for number, said in enumerate((_FIRST + word).tolist()):
            middle = [said, *place] if number % 2 else [*place, said]
            rows.append([_EXAMPLE.start or 1, *middle, _EXAMPLE.end])
        text = torch.tensor(rows)
        learnt = torch.ones_like(text, dtype=torch.bool)
        learnt[:, 0] = False
        frames = torch.full((len(text), 1), batch["video"].shape[1])
        length = torch.full((len(text),), text.shape[1])
        return batch | {"text": text, "text_length": length, "learnt": learnt, "frames": frames}


_WORDS = 8
_FIRST = 7
_EXAMPLE = Vocabulary.drawn(_FIRST + _WORDS, SPECIALS)
"""Vocabulary of the drawn example: special tokens, two pieces of ``<vision>`` and ``</vision>``, and words."""
_BEGIN, _END = (5, 6), (6, 5)


@dataclass(frozen=True, kw_only=True)
class VisionTextInfo(ConversationInfo):
    """Properties of text with videos that objectives need."""

    begin: tuple[int, ...]
    """Tokens of ``<vision>``."""
    end: tuple[int, ...]
    """Tokens of ``</vision>``."""


@dataclass(frozen=True, kw_only=True)
class PairSample(ConversationSample):
    """A video or an image with captions, of which one is drawn, or a part of a text."""

    kind: ClassVar[type[Kind]] = VisionText

    order: Order = "drawn"
    requests: bool = False
    ids: tuple[int, ...] = ()
    """Token ids of text alone; empty for a pair."""

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """Clips as of any video, an image as one frame, with a caption before or after each.

        Raises:
            DecodeError, OSError: the image or video cannot be read.
        """
        if self.ids:
            black = torch.zeros((1, 3, data.clip.size, data.clip.size), dtype=torch.uint8)
            text = self._as_text(list(self.ids), 1)
            content = {"video": black, "frames": torch.zeros(1, dtype=torch.int64), **text}
            return [Row(content=content, times=(0.0, 0.0))] * (num_clips * num_crops)
        if self.is_image:
            data = replace(data, clip=replace(data.clip, num_frames=1))
        rows = clips.cut(self, data, rng=rng, num_clips=num_clips, num_crops=num_crops)
        return [replace(row, content={**row.content, **self._told(row, rng)}) for row in rows]

    def num_tokens(self) -> tuple[int, int]:
        """Number of tokens that it takes with its longest caption, and how many of them are learnt."""
        if self.ids:
            return len(self.ids), len(self.ids) - 1
        found = []
        for caption in self.text:
            ids, given = self._example(caption, vision_first=False)
            length = self.serialiser.length(ids, self.sizes)
            found.append((length, length - given))
        return max(found)

    @classmethod
    def cut_in_turn(
        cls, samples: Sequence[Any], data: Data, num_clips: int = 1, num_crops: int = 1
    ) -> list[list[Row]]:
        """The rows that :meth:`cut` returns for evaluation, of each of several samples of one file."""
        return [sample.cut(data, num_clips=num_clips, num_crops=num_crops) for sample in samples]

    def _told(self, row: Row, rng: np.random.Generator | None) -> dict[str, torch.Tensor]:  # type: ignore[override]
        caption = self.text[0 if rng is None else int(rng.integers(len(self.text)))]
        first = self.order == "vision_first"
        if self.order == "drawn" and rng is not None:
            first = bool(rng.random() < 0.5)
        ids, given = self._example(caption, vision_first=first and not self.requests)
        frames = torch.tensor([len(row.content["video"])])
        return {"frames": frames, **self._as_text(ids, given)}

    def _as_text(self, ids: list[int], given: int) -> dict[str, torch.Tensor]:
        """Ids in a batch, of which the first ones are ``given`` and all others learnt."""
        text = torch.tensor(ids)
        return {"text": text, "text_length": torch.tensor(len(ids)), "learnt": torch.arange(len(ids)) >= given}

    def _example(self, caption: str, *, vision_first: bool) -> tuple[list[int], int]:
        """Ids of a pair, and how many of them at its start are not learnt."""
        own, tokenizer = self.serialiser, self.serialiser.tokenizer
        video = own.visual()
        if self.requests:
            kind = _IMAGE if self.is_image else _VIDEO
            around = len(own.prompt([Turn("user", REQUEST.format(kind, "a"))], self.name))
            if len(words := tokenizer.encode(caption)) > (room := max(1, self._room() - around)):
                caption = tokenizer.decode(words[:room])
            begun = own.prompt([Turn("user", REQUEST.format(kind, caption))], self.name)
            return [*begun, *video, tokenizer.end], len(begun)
        start = _start(tokenizer)
        room = self._room() - len(start) - 1
        words = tokenizer.encode(caption)[:room]
        parts = (video, words) if vision_first else (words, video)
        return [*start, *parts[0], *parts[1], tokenizer.end], len(start)

    def _room(self) -> int:
        """Number of tokens that are left for text beside the video."""
        own = self.serialiser
        video = own.length(own.visual(), self.sizes)
        assert own.max_length is not None, "of a kind with one"
        if own.max_length <= video + 2:
            raise UserError(
                f"{self.name} takes {video} tokens, and an example has at most {own.max_length}: nothing is left for "
                "text; raise --data.reads.max-length, or lower --data.clip.num-frames or --data.clip.size"
            )
        return own.max_length - video


@dataclass(frozen=True, kw_only=True)
class VisionTextSource(ConversationSource):
    """Examples of one or several kinds, with the tokenizer of their texts."""

    kind: ClassVar[type[Kind]] = VisionText

    def info(self, train_split: str) -> VisionTextInfo:
        """Properties of the collection that an objective needs before it is built."""
        tokenizer = self.text_tokenizer
        return VisionTextInfo(
            **self.told(train_split),
            tokenizer=Vocabulary.of(tokenizer, SPECIALS),
            stop=self.serialiser.stop,
            begin=tuple(tokenizer.encode(AROUND[0])),
            end=tuple(tokenizer.encode(AROUND[1])),
        )


def _source(root: Path, samples: tuple[Sample, ...], tokenizer: TextTokenizer) -> VisionTextSource:
    return VisionTextSource(root=root, classes=(), samples=samples, directional=True, text_tokenizer=tokenizer)


def _check_marks(tokenizer: TextTokenizer) -> None:
    """See that a tokenizer has what stands around videos.

    Raises:
        UserError: it reads that as unknown words, as one of words of text alone does.
    """
    unknown = None
    with contextlib.suppress(UserError):
        unknown = tokenizer.special(UNKNOWN)
    if unknown in [i for text in AROUND for i in tokenizer.encode(text)]:
        raise UserError(
            f"the tokenizer of texts does not know {' and '.join(AROUND)}, between which videos stand: take one of "
            "bytes or of a published model (--data.reads.tokenizer), for the language model of text, too"
        )


def _start(tokenizer: TextTokenizer) -> list[int]:
    return [] if tokenizer.start is None else [tokenizer.start]


def _pair(sample: Sample, serialiser: Serialiser, reads: VisionText) -> PairSample:
    values = {each.name: getattr(sample, each.name) for each in fields(Sample)}
    size = (reads.image_tokens if sample.is_image else reads.visual_tokens) or 1
    turns = (Turn("user", VIDEO), Turn("assistant", sample.text[0]))
    return PairSample(
        **values | {"label": None, "target": None},
        dialogue=Dialogue(name=sample.name, visuals=(sample.path,), turns=turns, split=sample.split),
        serialiser=serialiser,
        several=True,
        sizes=(size,),
        order=reads.order,
        requests=reads.requests,
    )


def _parts(sample: Sample, serialiser: Serialiser, reads: VisionText) -> list[PairSample]:
    """The parts of a text, each as long as an example may be; the last ends with the end of a text."""
    tokenizer = serialiser.tokenizer
    start = _start(tokenizer)
    room = min(reads.max_length, reads.pack or reads.max_length) - len(start)
    ids = [*tokenizer.encode(sample.text[0]), tokenizer.end]
    found = [ids[i : i + room] for i in range(0, len(ids), room)]
    turns = (Turn("user", ""), Turn("assistant", ""))
    return [
        PairSample(
            path=sample.path,
            name=sample.name if len(found) == 1 else f"{sample.name}, part {number}",
            split=sample.split,
            dialogue=Dialogue(name=sample.name, turns=turns, split=sample.split),
            serialiser=serialiser,
            several=True,
            ids=(*start, *part),
        )
        for number, part in enumerate(found, 1)
        if len(start) + len(part) > 1
    ]


def _question_first(sample: Sample) -> Sample:
    """A conversation whose video stands behind its first question, as published."""
    assert isinstance(sample, ConversationSample)
    turns = list(sample.dialogue.turns)
    at = next((i for i, turn in enumerate(turns) if turn.role == "user"), 0)
    said = turns[at].text
    for place in SPECIALS:
        if said.startswith(place) and (rest := said.removeprefix(place).strip()) and place not in rest:
            turns[at] = Turn("user", f"{rest}\n{place}")
    return replace(sample, dialogue=replace(sample.dialogue, turns=tuple(turns)))


def _is_text(path: Path) -> bool:
    """Whether a path is plain text: documents, and no videos or conversations."""
    if path.is_file():
        return path.suffix.lower() in PLAIN or (path.suffix.lower() == ".jsonl" and _has_texts(path))
    if not path.is_dir() or (path / "manifest.csv").exists():
        return False
    names = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return bool(names) and all(p.suffix.lower() in PLAIN or (p.suffix == ".jsonl" and _has_texts(p)) for p in names)


def _has_texts(path: Path) -> bool:
    """Whether a file's first record is a text."""
    try:
        with path.open(encoding="utf-8") as lines:
            record = json.loads(next(line for line in lines if line.strip()))
    except (OSError, ValueError, StopIteration):
        return False
    return isinstance(record, dict) and isinstance(record.get("text"), str) and "conversations" not in record
