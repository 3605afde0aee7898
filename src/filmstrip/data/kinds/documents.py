"""Documents: long texts, one after another, cut into rows of one length for a language model of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch

from filmstrip.bounds import Count
from filmstrip.data.actions import ActionSpace
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.reading.order import derive_seed
from filmstrip.data.sample import HELD_OUT, Sample, Source, hold_out
from filmstrip.data.texts import TEXT, TEXT_LENGTH, Vocabulary
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.text.documents import Document, read_documents
from filmstrip.text.tokenizers import SPECIALS, Saved, TextTokenizer, TextTokenizerConfig, Words

SPECIFICATION = Specification(
    {
        "text": replace(TEXT, padding=0),
        "text_length": TEXT_LENGTH,
        "learnt": of("B L", torch.bool, "whether the token is learnt: all but starts of documents", padding=0),
        **COMMON,
    }
)


@dataclass(frozen=True, kw_only=True)
class Documents(Kind):
    """Texts for a language model: documents one after another, cut at a length; the rest goes on in the next row.

    ``data.path`` is a text (``.txt``, ``.md``), records with a ``text`` (JSON Lines, Parquet), or a folder of those,
    at any depth. Splits are folders or files called ``train``, ``test`` and so on, or the ``split`` of records;
    without any a fifth of the documents is held out, or of a single document its end.
    """

    mixes: ClassVar[bool] = True
    specification: ClassVar[Specification] = SPECIFICATION

    tokenizer: TextTokenizerConfig = field(default_factory=Words)
    """Tokenizer of the texts."""
    length: Count = 1024
    """Number of tokens of a row that the model reads; each is followed by the one that it predicts last."""
    min_tokens: Count = 1
    """Minimum number of tokens of a document; shorter ones are left out."""
    max_tokens: Count | None = None
    """Maximum number of tokens of a document; longer ones are left out. None for any."""
    column: str = "text"
    """Name of the texts in records."""

    @property
    def text_alone(self) -> bool:
        """True."""
        return True

    def as_recorded(self, folder: Path) -> Self:
        """See :meth:`Kind.as_recorded`: with the tokenizer of the run."""
        return replace(self, tokenizer=Saved(folder=str(folder)))

    def open(self, data: Data) -> DocumentSource:
        """The rows of the documents in ``data.path``, or of a synthetic dataset. All of them become ids here.

        Raises:
            UserError: there are none, a file is damaged, no document is as long as is asked for, or those for
                training have fewer tokens than a row.
        """
        if data.path is None and data.synthetic is None:
            raise UserError("no data was provided: set data.path to a folder of texts (--data PATH)")
        if data.path is None and data.synthetic is not None:
            path = data.synthetic.generate()
        else:
            path = Path(data.path or ".").expanduser()
        return _open(self, path, data.train_split)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """A row's tokens, with the one that its last predicts."""
        return {"L": self.length + 1}

    def told_sizes(self, data: Data, info: DataInfo) -> dict[str, int]:
        """Those of :meth:`sizes`."""
        return self.sizes(data, None)

    @property
    def row_tokens(self) -> int:
        """``length``."""
        return self.length

    def with_row_tokens(self, count: int) -> Self:
        """This kind with another ``length``."""
        return replace(self, length=count)

    def shown(self, data: Data) -> str:
        """Length of a row."""
        return f"rows of {self.length} tokens"

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> TextInfo:
        """See :meth:`Kind.example_info`."""
        return TextInfo(**told, tokenizer=_EXAMPLE)

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Rows that count up by steps of their own; see :meth:`Kind.example`."""
        batch, first = sizes["B"], _EXAMPLE.size - _NUMBERS
        start, step = (torch.randint(1, _NUMBERS, (batch, 1), generator=generator) for _ in range(2))
        text = first + (start + step * torch.arange(_LENGTH)) % _NUMBERS
        return {
            "text": text,
            "text_length": torch.full((batch,), _LENGTH),
            "learnt": torch.ones_like(text, dtype=torch.bool),
            "seed": torch.randint(2**31, (batch,), generator=generator),
            "name": [f"row {i}" for i in range(batch)],
            "index": torch.arange(batch),
            "span": torch.zeros(batch, 2, dtype=torch.float64),
        }


_NUMBERS, _LENGTH = 8, 16
_EXAMPLE = Vocabulary.drawn(256, SPECIALS)
"""Vocabulary of the drawn example, whose last ids are numbers; the words of small synthetic sets are no more."""


@dataclass(frozen=True, kw_only=True)
class TextInfo(DataInfo):
    """Properties of documents that objectives need."""

    tokenizer: Vocabulary
    """Vocabulary of the documents."""


@dataclass(frozen=True, kw_only=True)
class TextRow(Sample):
    """One row of documents."""

    kind: ClassVar[type[Kind]] = Documents
    in_turn: ClassVar[bool] = False

    ids: np.ndarray = field(repr=False, compare=False)
    """Token ids, a part of those of all documents of the split."""
    begins: int | None = None
    """Id of the start of a document, which is not learnt; none where documents have no start."""
    pad: int = 0

    @property
    def specification(self) -> Specification:
        """Text is padded with the tokenizer's own id."""
        return Specification({**SPECIFICATION.keys, "text": replace(SPECIFICATION.keys["text"], padding=self.pad)})

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """The row, as often as it is asked for."""
        text = torch.from_numpy(self.ids.astype(np.int64))
        learnt = torch.ones_like(text, dtype=torch.bool) if self.begins is None else text != self.begins
        content = {"text": text, "text_length": torch.tensor(len(text)), "learnt": learnt}
        return [Row(content=content, times=(0.0, 0.0))] * (num_clips * num_crops)


@dataclass(frozen=True, kw_only=True)
class DocumentSource(Source):
    """Documents as rows of tokens, with their tokenizer."""

    kind: ClassVar[type[Kind]] = Documents

    text_tokenizer: TextTokenizer

    @property
    def starts(self) -> int | None:
        """Id of the start of a document, if documents have one."""
        return _start_of(self.text_tokenizer)

    def info(self, train_split: str) -> TextInfo:
        """Properties of the collection that an objective needs before it is built."""
        return TextInfo(**self.told(train_split), tokenizer=Vocabulary.of(self.text_tokenizer, SPECIALS))

    def record(self, folder: Path) -> None:
        """Write the tokenizer into a run folder."""
        self.text_tokenizer.save(folder)


class _Encoded(NamedTuple):
    split: str
    ids: np.ndarray
    """Token ids, ``N`` int32: as Python's numbers they would take nine times as much."""


def _open(config: Documents, path: Path, train_split: str) -> DocumentSource:
    documents = _with_splits(read_documents(path, config.column))
    tokenizer = config.tokenizer.fit([d.text for d in documents if d.split == train_split])
    start = _start_of(tokenizer)
    begun = [] if start is None else [start]
    encoded = [
        _Encoded(d.split, np.array([*begun, *tokenizer.encode(d.text), tokenizer.end], dtype=np.int32))
        for d in documents
    ]
    kept = _of_length(encoded, config, path)
    samples = [
        row
        for split in dict.fromkeys(one.split for one in kept)
        for row in _rows([one.ids for one in kept if one.split == split], split, config, path, split == train_split)
    ]
    return DocumentSource(
        root=path,
        classes=(),
        samples=tuple(replace(row, begins=start, pad=tokenizer.pad) for row in samples),
        directional=True,
        text_tokenizer=tokenizer,
    )


def _start_of(tokenizer: TextTokenizer) -> int | None:
    """Id of the start of a document, if it has one that is not also the end (GPT-2's is)."""
    return tokenizer.start if tokenizer.start != tokenizer.end else None


def _with_splits(documents: Sequence[Document]) -> list[Document]:
    """Documents in splits: their own, or the names of documents decide; of a single one its end is held out."""
    if any(document.split for document in documents):
        return [document for document in documents if document.split]
    if len(documents) == 1:
        (whole,) = documents
        border = whole.text.find(" ", round((1 - HELD_OUT) * len(whole.text)))
        parts = {"train": whole.text[:border], "test": whole.text[border:]} if border > 0 else {"train": whole.text}
        return [replace(whole, text=text, split=split) for split, text in parts.items()]
    samples = hold_out([Sample(path=document.name, name=document.name) for document in documents])
    return [replace(document, split=sample.split) for document, sample in zip(documents, samples)]


def _of_length(encoded: Sequence[_Encoded], config: Documents, path: Path) -> list[_Encoded]:
    """Documents that are as long as is asked for."""
    most = config.max_tokens
    kept = [one for one in encoded if config.min_tokens <= len(one.ids) and (most is None or len(one.ids) <= most)]
    if not kept:
        lengths = [len(one.ids) for one in encoded]
        wanted = f"{config.min_tokens} tokens or more" if most is None else f"{config.min_tokens} to {most} tokens"
        raise UserError(
            f"none of the {len(encoded)} documents in {path} has {wanted}: they have {min(lengths)} to "
            f"{max(lengths)} (--data.reads.min-tokens, --data.reads.max-tokens)"
        )
    return kept


def _rows(
    documents: Sequence[np.ndarray], split: str, config: Documents, path: Path, training: bool
) -> list[TextRow]:
    """The rows of the documents of one split, which come in a drawn order; what is left at the end of those for
    training is less than a row, and dropped."""
    order = np.random.default_rng(derive_seed("documents", split)).permutation(len(documents))
    ids = np.concatenate([documents[i] for i in order])
    length = config.length
    count = (len(ids) - 1) // length if training else -(-(len(ids) - 1) // length)
    if not count:
        raise UserError(
            f"the split {split!r} of {path} has {len(ids)} tokens, and a row has {length} and the next one: shorten "
            "rows (--data.reads.length), or give more text"
        )
    return [
        TextRow(
            path=str(path),
            name=f"{split}, tokens {first} to {min(first + length, len(ids) - 1)}",
            split=split,
            ids=ids[first : first + length + 1],
        )
        for first in range(0, count * length, length)
    ]
