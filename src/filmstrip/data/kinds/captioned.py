"""Clips of videos, or images, each with one caption drawn from its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Bounds, Count
from filmstrip.data.actions import ActionSpace
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds.clips import LABEL, NATIVE, VIDEO, Clips, draw_clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.sample import Sample, Source
from filmstrip.data.texts import TEXT, TEXT_LENGTH, Vocabulary, as_tokens, prompts_of, tokenised
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.text.tokenizers import Saved, TextTokenizer, TextTokenizerConfig, Words

log = logging.getLogger(__name__)

NAMED_CLASS = of(
    "B",
    torch.int64,
    "class of which the caption is made; -1 for a caption of the sample's own",
    unmixed="captions",
    when="`data.reads.prompts`",
)
_DRAWN_LENGTH, _DRAWN_SIZE = 12, 128
"""Length and vocabulary of drawn captions, unless they are given."""


@dataclass(frozen=True, kw_only=True)
class Captioned(Kind):
    """Clips with captions: of a manifest with a column ``caption`` (or several), or of shards with ``key.txt``.

    Of several captions training draws one, and evaluation takes the first. Captions may be made of classes
    (``prompts``); batches then say of which. Nothing is mirrored, since captions tell
    left from right. With a tokenizer that is not fitted to captions, as that of a run, samples may have none: batches
    have no text then.
    """

    mixes: ClassVar[bool] = True
    specification: ClassVar[Specification] = Specification(
        {
            "video": replace(VIDEO, padding=0),
            **NATIVE,
            "text": replace(TEXT, unmixed="captions", when="captioned samples"),
            "text_length": replace(TEXT_LENGTH, when="captioned samples"),
            "label": LABEL,
            "named_class": NAMED_CLASS,
            **COMMON,
        }
    )

    layout: Literal["auto", "folder", "ucf101", "kinetics", "ssv2"] = "auto"
    """Layout of a folder; ``auto`` detects it. Something-Something's labels are its captions."""
    tokenizer: TextTokenizerConfig = field(default_factory=Words)
    """Tokenizer of captions, ``words`` or ``bytes`` on the command line, or a folder: that of a run with a tokenizer,
    or of a published model. Words are those of the training split."""
    max_length: Annotated[int, Bounds(min=2)] = 32
    """Number of token ids of a caption, its end and padding included; longer captions are cut."""
    start: bool = True
    """Whether captions begin with the tokenizer's start, if it has one."""
    prompts: tuple[str, ...] = ()
    """Captions of samples that have a class and none of their own, in which ``{}`` stands for the class's name, such
    as "a video of {}"; none to leave such samples out."""

    def as_recorded(self, folder: Path) -> Self:
        """See :meth:`Kind.as_recorded`: with the tokenizer of the run."""
        return replace(self, tokenizer=Saved(folder=str(folder)))

    def open(self, data: Data) -> CaptionedSource:
        """The captioned samples of ``data.path`` or of a synthetic set, which is generated first if necessary.

        Raises:
            UserError: there is nothing to read, or no sample has a caption.
        """
        return self.with_tokenizer(self.captioned(data), (), data.train_split)

    def captioned(self, data: Data) -> Source:
        """The collection, without the samples that lack a caption if others have one.

        Raises:
            UserError: as :meth:`open`.
        """
        source = Clips(layout=self.layout, actions=False).open(data)
        if source.kind is not Clips:
            raise UserError(f"{source.root} holds features of videos: captions are read beside the videos themselves")
        told = self._prompts(source)
        source = replace(
            source,
            samples=tuple(
                sample if sample.text else replace(sample, text=told.get(sample.label, ()))
                for sample in source.samples
            ),
        )
        captioned = [sample for sample in source.samples if sample.text]
        if not captioned and isinstance(self.tokenizer, Words):
            raise UserError(
                f"{source.root} has no captions: expected a manifest with a column caption (or caption_1, caption_2, "
                "..., or a JSON list in it), or shards with key.txt beside key.mp4; classes are captions by "
                "--data.reads.prompts"
            )
        captioned = captioned or list(source.samples)
        if missing := len(source.samples) - len(captioned):
            log.warning(
                "%s: %d of %d samples have no caption and are left out", source.root, missing, len(source.samples)
            )
        return replace(source, samples=tuple(captioned))

    def with_tokenizer(self, source: Source, others: Iterable[str], train_split: str) -> CaptionedSource:
        """A collection whose captions are read by a tokenizer, fitted to those of training and to ``others``."""
        texts = (text for sample in source.samples if sample.split == train_split for text in sample.text)
        tokenizer = self.tokenizer.fit(chain(texts, others), ())
        told = self._prompts(source)
        return CaptionedSource(
            root=source.root,
            classes=source.classes,
            samples=tuple(
                _with_tokenizer(sample, tokenizer, self, told.get(sample.label)) for sample in source.samples
            ),
            directional=True,
            text_tokenizer=tokenizer,
            reads=self,
        )

    def _prompts(self, source: Source) -> dict[int | None, tuple[str, ...]]:
        """Captions of each class, if captions are made of classes."""
        classes = source.classes if self.prompts else ()
        return {label: prompts_of(name, self.prompts) for label, name in enumerate(classes)}

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a clip, and of a caption (``L``) with its vocabulary (``V``)."""
        size = getattr(network, "vocab_size", None) or _DRAWN_SIZE
        return {**Clips().sizes(data, network), "L": self.max_length, "V": size}

    def told_sizes(self, data: Data, info: CaptionInfo) -> dict[str, int]:
        """The same, with the classes and the vocabulary of the data."""
        return self.sizes(data, None) | {"K": len(info.classes) or 1, "V": info.tokenizer.size}

    def shown(self, data: Data) -> str:
        """Those of clips, and the length of captions."""
        return f"{Clips().shown(data)} with captions of {self.max_length} tokens"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> CaptionInfo:
        """See :meth:`Kind.example_info`."""
        size, length = sizes.get("V", _DRAWN_SIZE), sizes.get("L", _DRAWN_LENGTH)
        return CaptionInfo(**told, tokenizer=Vocabulary.drawn(size), max_length=length)

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Clips as drawn, whose captions name the mean colours of their quarters; see :meth:`Kind.example`."""
        batch = draw_clips(sizes, generator)
        length, size = sizes.get("L", _DRAWN_LENGTH), sizes.get("V", _DRAWN_SIZE)
        quarters = F.adaptive_avg_pool2d(batch["video"].float().mean(dim=1), 2).flatten(1)
        words = 3 + (quarters * (size - 3) / 256).long().repeat(1, -(-length // quarters.shape[1]))[:, :length]
        counts = torch.randint(min(4, length), length + 1, (sizes["B"],), generator=generator)
        place, last = torch.arange(length), counts[:, None] - 1
        ids = words.where(place > 0, 1).where(place < last, 2).where(place <= last, 0)
        return batch | {"text": ids, "text_length": counts}


@dataclass(frozen=True, kw_only=True)
class CaptionInfo(DataInfo):
    """Properties of captioned clips that objectives need."""

    tokenizer: Vocabulary
    """Vocabulary of the captions."""
    max_length: Count
    """Number of token ids of a caption, padding included."""


@dataclass(frozen=True, kw_only=True)
class CaptionedSample(Sample):
    """A sample with captions and the tokenizer that makes ids of them."""

    kind: ClassVar[type[Kind]] = Captioned

    text_tokenizer: TextTokenizer = field(repr=False, compare=False)
    max_length: int
    starts: bool
    """Whether a caption begins with the tokenizer's start."""
    names_class: bool | None = None
    """Whether captions are made of the sample's class; none where no sample's are."""

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """Clips as of any sample, each with a caption of its own draw, or with the first one without ``rng``."""
        rows = super().cut(data, rng=rng, num_clips=num_clips, num_crops=num_crops, actions=actions)
        return self.captioned(rows, rng)

    def captioned(self, rows: Sequence[Row], rng: np.random.Generator | None) -> list[Row]:
        """Rows with a caption each, of its own draw, or the first one without ``rng``."""
        return [
            self._told(row, 0 if rng is None or not self.text else int(rng.integers(len(self.text)))) for row in rows
        ]

    @classmethod
    def cut_in_turn(
        cls, samples: Sequence[Self], data: Data, num_clips: int = 1, num_crops: int = 1
    ) -> list[list[Row]]:
        """The rows that :meth:`cut` returns for evaluation, of each of several samples of one file."""
        read = super().cut_in_turn(samples, data, num_clips, num_crops)
        return [[sample._told(row, 0) for row in rows] for sample, rows in zip(samples, read)]

    def _told(self, row: Row, number: int) -> Row:
        if not self.text:
            return row
        ids, count = as_tokens(self.text_tokenizer, self.text[number], self.max_length, start=self.starts)
        content = {**row.content, "text": ids, "text_length": count}
        if self.names_class is not None:
            content["named_class"] = torch.tensor(self.label if self.names_class else -1)
        return replace(row, content=content)


@dataclass(frozen=True, kw_only=True)
class CaptionedSource(Source):
    """A collection of captioned samples."""

    kind: ClassVar[type[Kind]] = Captioned

    text_tokenizer: TextTokenizer = field(compare=False)
    reads: Captioned

    @property
    def gives(self) -> frozenset[str]:
        """Keys of batches: without text where no sample has a caption, and without classes where none is made of
        them."""
        absent = set() if self.reads.prompts else {"named_class"}
        if not any(sample.text for sample in self.samples):
            absent |= {"text", "text_length", "named_class"}
        return super().gives - absent

    def info(self, train_split: str) -> CaptionInfo:
        """The properties of the collection that an objective needs before it is built."""
        vocabulary = Vocabulary.of(self.text_tokenizer)
        return CaptionInfo(**self.told(train_split), tokenizer=vocabulary, max_length=self.reads.max_length)

    def record(self, folder: Path) -> None:
        """Write the tokenizer, which new texts need."""
        self.text_tokenizer.save(folder)

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts as in batches: ids ``B L`` and lengths ``B``."""
        return tokenised(self.text_tokenizer, texts, self.reads.max_length, start=self.reads.start)


def _with_tokenizer(
    sample: Sample, tokenizer: TextTokenizer, reads: Captioned, prompts: tuple[str, ...] | None
) -> CaptionedSample:
    """A sample that is captioned; ``prompts`` are the captions that would be made of its class, if any."""
    values = {each.name: getattr(sample, each.name) for each in fields(Sample)}
    return CaptionedSample(
        **values,
        text_tokenizer=tokenizer,
        max_length=reads.max_length,
        starts=reads.start,
        names_class=sample.text == prompts if reads.prompts else None,
    )
