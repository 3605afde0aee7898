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
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.actions import ActionSpace
from filmstrip.data.annotations.dialogues import SHOWN, Dialogue, files_of, read_dialogues
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Form, Key, Specification, of
from filmstrip.data.reading.packing import Packing
from filmstrip.data.sample import Sample, Source, hold_out
from filmstrip.data.texts import TEXT, TEXT_LENGTH, Vocabulary
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.text.conversation import HUB, TEMPLATES, Serialiser, Turn, count_places, timed
from filmstrip.text.tokenizers import SPECIALS, Saved, TextTokenizer, TextTokenizerConfig, Words
from filmstrip.video.images import is_image

log = logging.getLogger(__name__)

SPECIFICATION = Specification(
    {
        "video": replace(clips.VIDEO, padding=0, when="`data.reads.visuals` above 0"),
        "frames": of(
            "B K",
            torch.int64,
            "number of frames of each image and video, which are one after another in `video`",
            padding=0,
            when="`data.reads.visuals` above 1",
        ),
        "times": of(
            "B K 2",
            torch.float64,
            "times of the first and last frame of each video, in seconds; -1 for an image",
            padding=-1,
            when="`data.reads.timestamps`",
        ),
        **clips.NATIVE,
        "frame_size": Key(
            "height and width of the frames, in pixels, of each image and video where there may be several",
            (Form("B K 2", torch.int64), Form("B 2", torch.int64)),
            padding=0,
            when="`data.clip.native`",
        ),
        "text": replace(TEXT, padding=0, unmixed="conversations"),
        "text_length": TEXT_LENGTH,
        "learnt": of("B L", torch.bool, "whether the assistant says the token", padding=0),
        "document": of(
            "R N",
            torch.int64,
            "number of the conversation, from 1, at each place of the rows that conversations share; 0 for none",
            when="`data.reads.pack`",
        ),
        "step_means": of(
            "2",
            torch.float32,
            "number of conversations and of learnt tokens in a batch, the means over those of an optimiser step",
            when="`data.reads.pack`",
        ),
        **COMMON,
    }
)
OF_SHARED_ROWS = frozenset({"document", "step_means"})
"""Keys that a loader adds where conversations share rows."""
Format = Literal["plain", "caption", "bare", "v0", "v1", "lwm", "hub"]


@dataclass(frozen=True, kw_only=True)
class Conversations(Kind):
    """Conversations about an image or a video each, about several (``visuals``), or about none.

    ``data.path`` is a file in the layout of LLaVA, ShareGPT4V or LLaVA-Video (JSON, JSON Lines), of text alone also
    of ShareGPT or UltraChat; a table with the columns ``video``, ``question`` and ``answer`` (CSV); or a folder with
    such a file called ``dialogues``, or with ``train`` and ``test``. An image is a video that stands still.
    """

    mixes: ClassVar[bool] = True
    specification: ClassVar[Specification] = SPECIFICATION
    visual_text: ClassVar[tuple[str, str]] = ("", "")
    """Ordinary text before and after the place of a visual; empty for none."""
    question_first: ClassVar[bool] = False
    """Whether visuals stand behind the question about them, unless it says where."""

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
    visual_tokens: Count | None = None
    """Number of tokens that a visual takes in the language model, for ``max_length``; in training by default as many
    as the model makes of a clip."""
    image_tokens: Count | None = None
    """The same of an image, where that is one frame."""
    visuals: CountOrZero = 1
    """Maximum number of images and videos of a conversation. With more than one an image is one frame; with one it
    stands still for as many frames as a video has; with none batches are text alone."""
    timestamps: bool = False
    """Whether the place of a video becomes one for each of its frames, after the frame's time as text."""
    around_visual: tuple[str, str] = ("", "")
    """Special tokens of the tokenizer before and after the place of a visual, by their names; empty for none."""
    pack: Count | None = None
    """Number of tokens of a row that several conversations share in the language model (masked packing), in training;
    none for a row each, padded. ``data.batch_size`` then counts such rows. No conversation sees another, and the
    loss is the mean over the whole step, as without."""

    @property
    def text_alone(self) -> bool:
        """Whether conversations have no images and videos."""
        return self.visuals == 0

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
        if self.pack is not None and (data.clip.native is not None or self.timestamps or data.clips_per_video > 1):
            raise UserError(
                "conversations share rows by their numbers of tokens, which must be known before they are read: "
                "leave out data.reads.pack, or data.clip.native, data.reads.timestamps and data.clips_per_video"
            )
        path = data.synthetic.generate() if data.path is None and data.synthetic else Path(data.path or ".")
        return _open(self, path.expanduser(), data.train_split)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of ``data.clip``, and the longest text."""
        if self.text_alone:
            return {"L": self.max_length}
        clip = data.clip
        length = max(1, self.max_length - (self.visual_tokens or 1) + 1)
        frames = {"T": clip.num_frames, "C": 3, "H": clip.size, "W": clip.size}
        return frames | clips.native_sizes(clip) | {"L": length}

    def told_sizes(self, data: Data, info: ConversationInfo) -> dict[str, int]:
        """Those of :meth:`sizes`."""
        return self.sizes(data, None)

    @property
    def row_tokens(self) -> int:
        """That of shared rows, or of the longest conversation."""
        return self.pack or self.max_length

    def with_row_tokens(self, count: int) -> Self:
        """This kind with other ``max_length``, and ``pack`` if rows are shared."""
        return replace(self, max_length=count, pack=None if self.pack is None else count)

    def shown(self, data: Data) -> str:
        """Number of frames and their size."""
        if self.text_alone:
            return f"conversations of up to {self.max_length} tokens"
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
    several: bool = False
    """Whether conversations of its source may have several images and videos."""
    files: tuple[str, ...] = ()
    """Paths of all of its images and videos, where a conversation may have several; empty where each has one."""
    sizes: tuple[int, ...] = ()
    """Number of tokens of each of its images and videos, where they are not all the serialiser's."""
    timestamps: bool = False
    """Whether the place of a video becomes one for each of its frames."""
    text_alone: bool = False
    """Whether conversations of its source have no images and videos at all."""

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
        if self.text_alone:
            return self._told([Row(content={}, times=(0.0, 0.0))] * (num_clips * num_crops))
        if self.dialogue.visual is None:
            frames, side, native = data.clip.num_frames, data.clip.size, data.clip.native
            size = (side, side) if native is None else native.size_of(frames, side, side)
            content = {"video": torch.zeros((frames, 3, *size), dtype=torch.uint8)}
            if self.timestamps:
                content["times"] = torch.full((1, 2), -1.0, dtype=torch.float64)
            rows = clips.with_sizes([Row(content=content, times=(0.0, 0.0))] * (num_clips * num_crops), data.clip)
            if self.several:
                rows = [_joined([row], [True], timestamps=False) for row in rows]
            return self._told(rows)
        if not self.files:
            return self._told(clips.cut(self, data, rng=rng, num_clips=num_clips, num_crops=num_crops))
        still = replace(data, clip=replace(data.clip, num_frames=1))
        parts = [
            clips.cut(
                replace(self, path=file),
                still if is_image(file) else data,
                rng=rng,
                num_clips=num_clips,
                num_crops=num_crops,
            )
            for file in self.files
        ]
        images = [is_image(file) for file in self.files]
        return self._told([_joined(rows, images, timestamps=self.timestamps) for rows in zip(*parts)])

    def num_tokens(self) -> tuple[int, int]:
        """Number of tokens that the conversation takes in the language model, and how many of them are learnt."""
        ids, learnt = self.serialiser.mark(self.dialogue.turns, self.name, self.sizes)
        return self.serialiser.length(ids, self.sizes), sum(learnt[1:])

    def as_shown(self, batch: Batch, row: int) -> Self:
        """The sample with the turns that say of a row of a batch when its frames are, if they do."""
        if not self.timestamps:
            return self
        count = batch["video"].shape[1]
        frames = batch["frames"][row].tolist() if "frames" in batch else [count]
        turns = timed(self.dialogue.turns, _times_of(batch["times"][row].tolist(), frames))
        return replace(self, dialogue=replace(self.dialogue, turns=turns))

    @classmethod
    def cut_in_turn(
        cls, samples: Sequence[Self], data: Data, num_clips: int = 1, num_crops: int = 1
    ) -> list[list[Row]]:
        """Conversations about one file share one opening of it."""
        if samples[0].dialogue.visual is None or any(sample.files for sample in samples):
            return [sample.cut(data, num_clips=num_clips, num_crops=num_crops) for sample in samples]
        found = clips.cut_in_turn(samples, data, num_clips, num_crops)
        return [sample._told(rows) for sample, rows in zip(samples, found)]

    def _told(self, rows: Sequence[Row]) -> list[Row]:
        if not self.timestamps:
            told = self._marked(self.dialogue.turns, self.sizes)
            return [replace(row, content={**row.content, **told}) for row in rows]
        found = []
        for row in rows:
            content: dict[str, Tensor] = dict(row.content)
            if "times" not in content:
                span = (-1.0, -1.0) if is_image(self.path) else row.times
                content["times"] = torch.tensor([span], dtype=torch.float64)
            frames = content["frames"].tolist() if "frames" in content else [len(content["video"])]
            times = _times_of(content["times"].tolist(), frames)
            sizes = [
                each
                for size, own in zip(self.sizes, times)
                for each in ([size // len(own)] * len(own) if own else [size])
            ]
            told = self._marked(timed(self.dialogue.turns, times), sizes)
            found.append(replace(row, content={**content, **told}))
        return found

    def _marked(self, turns: Sequence[Turn], sizes: Sequence[int]) -> dict[str, Tensor]:
        ids, learnt = self.serialiser.mark(turns, self.name, sizes)
        return {
            "text": torch.tensor(ids),
            "text_length": torch.tensor(len(ids)),
            "learnt": torch.tensor(learnt),
        }


def _joined(rows: Sequence[Row], images: Sequence[bool], *, timestamps: bool) -> Row:
    """One row of several images and videos; frames that differ in size are padded to the largest."""
    videos = [row.content["video"] for row in rows]
    height, width = (max(video.shape[axis] for video in videos) for axis in (2, 3))
    padded = [F.pad(video, (0, width - video.shape[3], 0, height - video.shape[2])) for video in videos]
    content = {"video": torch.cat(padded), "frames": torch.tensor([len(video) for video in videos])}
    if "frame_size" in rows[0].content:
        content["frame_size"] = torch.stack([row.content["frame_size"] for row in rows])
    if timestamps:
        spans = [(-1.0, -1.0) if still else row.times for row, still in zip(rows, images)]
        content["times"] = torch.tensor(spans, dtype=torch.float64)
    others = {key: value for key, value in rows[0].content.items() if key != "is_patch"}
    return replace(rows[0], content={**others, **content})


def _times_of(spans: Sequence[Sequence[float]], frames: Sequence[int]) -> list[list[float]]:
    """The times of the frames of each visual, evenly between those of its first and last; none of an image."""
    return [
        [] if first < 0 else np.linspace(first, last, count).tolist() for (first, last), count in zip(spans, frames)
    ]


@dataclass(frozen=True, kw_only=True)
class ConversationSource(Source):
    """Conversations, with the tokenizer of their texts."""

    kind: ClassVar[type[Kind]] = Conversations

    text_tokenizer: TextTokenizer = field(compare=False)
    """Tokenizer of the texts, which sources of a mixture must share."""
    text_alone: bool = False
    """Whether no conversation may have images and videos."""

    @property
    def serialiser(self) -> Serialiser:
        """What turns conversations into ids."""
        first = self.samples[0]
        assert isinstance(first, ConversationSample), "of which the source was made"
        return first.serialiser

    @property
    def gives(self) -> frozenset[str]:
        """Keys that batches have, but those of shared rows."""
        return super().gives - OF_SHARED_ROWS - ({"video"} if self.text_alone else set())

    def info(self, train_split: str) -> ConversationInfo:
        """Properties of the collection that an objective needs before it is built."""
        return ConversationInfo(
            **self.told(train_split),
            tokenizer=Vocabulary.of(self.text_tokenizer, SPECIALS),
            stop=self.serialiser.stop,
        )

    def packing(self, data: Data, seed: int) -> Packing | None:
        """See :meth:`Source.packing`; every conversation becomes ids for that.

        Those of each source of a mixture share rows among themselves, so that weights are shares of rows.
        """
        reads = data.reads
        assert isinstance(reads, Conversations)
        if reads.pack is None:
            return None
        samples = [sample for sample in self.split(data.train_split) if isinstance(sample, ConversationSample)]
        lengths, learnt = zip(*(sample.num_tokens() for sample in samples))
        names, sources = [sample.name for sample in samples], [sample.origin for sample in samples]
        return Packing.of(names, lengths, learnt, reads.pack, seed, sources=sources)

    def record(self, folder: Path) -> None:
        """Write the tokenizer into a run folder."""
        self.text_tokenizer.save(folder)


def serialiser_of(config: Conversations, tokenizer: TextTokenizer) -> Serialiser:
    """What turns conversations into ids, for a tokenizer that was fitted or opened."""
    return Serialiser(
        tokenizer,
        config.format,
        max_length=config.max_length,
        visual_tokens=config.visual_tokens or 1,
        around_visual=config.around_visual,
        visuals=not config.text_alone,
        visual_text=config.visual_text,
        question_first=config.question_first,
    )


def _open(config: Conversations, path: Path, train_split: str) -> ConversationSource:
    files = files_of(path)
    root = path if path.is_dir() else path.parent
    media = Path(config.media).expanduser() if config.media is not None else root
    found = [dialogue for file in files for dialogue in read_dialogues(file, text_alone=config.text_alone)]
    found = _there(found, media, config.missing, path)
    _check_visuals(found, config.visuals, path)
    tokens = [
        tuple((config.image_tokens if is_image(v) else None) or config.visual_tokens or 1 for v in d.visuals)
        for d in found
    ]
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
            several=config.visuals > 1,
            files=tuple(str(media / visual) for visual in d.visuals) if config.visuals > 1 else (),
            sizes=sizes if config.visuals > 1 or config.timestamps else (),
            timestamps=config.timestamps,
            text_alone=config.text_alone,
        )
        for d, sizes in zip(found, tokens)
    ]
    if not any(sample.split for sample in samples):
        samples = hold_out(samples)
    texts = [turn.text for s in samples if s.split == train_split for turn in s.dialogue.turns]
    around = (*config.visual_text, *(TEMPLATES[config.format].texts if config.format != HUB else ()))
    serialiser = serialiser_of(config, config.tokenizer.fit([*texts, *around]))
    _check_lengths(samples, serialiser, path)
    return ConversationSource(
        root=root,
        classes=(),
        samples=tuple(replace(sample, serialiser=serialiser) for sample in samples),
        directional=True,
        text_tokenizer=serialiser.tokenizer,
        text_alone=config.text_alone,
    )


def _there(found: list[Dialogue], media: Path, missing: str, path: Path) -> list[Dialogue]:
    """The conversations whose visuals are there.

    Raises:
        UserError: some are not, and they are not to be skipped, or none is.
    """
    known = {visual: os.path.exists(media / visual) for d in found for visual in d.visuals}
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
    return [d for d in found if all(known[visual] for visual in d.visuals)]


def _check_visuals(found: Sequence[Dialogue], most: int, path: Path) -> None:
    """See that no conversation has more images and videos than may be.

    Raises:
        UserError: one has.
    """
    if more := [d for d in found if len(d.visuals) > most]:
        largest = max(len(d.visuals) for d in more)
        raise UserError(
            f"{path}: {more[0].name} has {len(more[0].visuals)} visuals, and a conversation may have {most}: allow "
            f"them (--data.reads.visuals {largest}), for a method that {'reads several' if most else 'sees'}"
        )


def _check_lengths(samples: Sequence[ConversationSample], serialiser: Serialiser, path: Path) -> None:
    """See that every conversation that may be too long keeps an answer; a token is at least a byte.

    Raises:
        UserError: some do not.
    """
    errors = []
    for sample in samples:
        d, seen = sample.dialogue, sum(sample.sizes) or serialiser.visual_tokens
        most = sum(len(turn.text.encode()) for turn in d.turns) + 64 * len(d.turns) + 256 + seen
        if serialiser.max_length is not None and most > serialiser.max_length:
            try:
                serialiser.mark(d.turns, d.name, sample.sizes)
            except UserError as error:
                errors.append(str(error))
    if errors:
        shown = "\n".join(f"  {error}" for error in errors[:SHOWN])
        more = f"\n  and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise UserError(f"{path}: {len(errors)} conversations are too long to learn from:\n{shown}{more}")


def prompts(serialiser: Serialiser, conversations: Sequence[Sequence[Turn]]) -> Batch:
    """The ``text`` and ``text_length`` of conversations that end with a question, up to where its answer begins."""
    return padded([serialiser.prompt(turns) for turns in conversations], serialiser.tokenizer.pad)


def with_answers(serialiser: Serialiser, conversations: Sequence[Sequence[Turn]], answers: Sequence[str]) -> Batch:
    """The same conversations with an answer each, which alone is ``learnt``."""
    begun = [serialiser.prompt(turns) for turns in conversations]
    said = [serialiser.answer(answer) for answer in answers]
    batch = padded([[*a, *b] for a, b in zip(begun, said, strict=True)], serialiser.tokenizer.pad)
    at = torch.arange(batch["text"].shape[1])
    first = torch.tensor([len(ids) for ids in begun])[:, None]
    return batch | {"learnt": (at >= first) & (at < batch["text_length"][:, None])}


def padded(rows: Sequence[Sequence[int]], pad: int) -> Batch:
    """Ids of texts as ``text`` (``B L``) and ``text_length``."""
    length = max(map(len, rows))
    text = torch.tensor([[*ids, *[pad] * (length - len(ids))] for ids in rows])
    return {"text": text, "text_length": torch.tensor([len(ids) for ids in rows])}


def turns_of(
    question: str, history: Sequence[Turn] = (), *, visuals: int = 1, question_first: bool = False
) -> list[Turn]:
    """The turns of a question after those that were said before; the first one is about as many ``visuals``.

    They stand first, or behind the question (``question_first``), unless it says where each stands (``<video>``,
    ``<image>``).

    Raises:
        UserError: the question has places of another number of visuals.
    """
    asked = Turn("user", question)
    if not history and not (places := count_places([asked])):
        shown = question + "\n<video>" * visuals if question_first else "<video>\n" * visuals + question
        asked = Turn("user", shown)
    elif (expected := 0 if history else visuals) != (places := count_places([asked])):
        raise UserError(f"the question has places of {places} visuals, and there are {expected}: name each once")
    return [*history, asked]
