"""Text tokenizers: bytes, words of a collection, or the tokenizer of a published model.

A configuration (:class:`Bytes`, :class:`Words`, :class:`Pretrained`) gives the tokenizer of a collection of texts. A
tokenizer is saved into a folder and opened again from it, without the texts.

Special tokens, such as the end of a text or the place of a video, have ids of their own and names such as
``<video>``. Text never contains them: what looks like one in a text is encoded as ordinary characters.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from filmstrip.bounds import Count
from filmstrip.errors import UserError
from filmstrip.files import write_json

FILE = "text_tokenizer.json"
"""File of a saved tokenizer."""
FOLDER = "text_tokenizer"
"""Folder beside it, with the files of a published tokenizer."""
PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
VIDEO, IMAGE = "<video>", "<image>"
"""Special tokens at the place of a video or an image among text."""
SPECIALS = (VIDEO, IMAGE)
"""Special tokens that every tokenizer has beside those of its texts."""


@runtime_checkable
class TextTokenizer(Protocol):
    """Turns text into token ids and back."""

    size: int
    """Number of ids, special tokens included; ids are below it."""
    pad: int
    """Id of padding."""
    start: int | None
    """Id of the start of a text, if there is one."""
    end: int
    """Id of the end of a text."""
    mask: int | None
    """Id that stands for a masked token, if there is one (BERT)."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        ...

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of ids; names of special tokens are part of it only with ``specials``."""
        ...

    def special(self, name: str) -> int:
        """The id of a special token.

        Raises:
            UserError: there is none of this name; the message lists the names.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the tokenizer into a folder, for :func:`open_tokenizer`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Text as the bytes of its UTF-8 form: 256 ids and special tokens, without any vocabulary."""

    def fit(self, texts: Iterable[str], specials: Sequence[str] = SPECIALS) -> ByteTokenizer:
        """The tokenizer, with further special tokens; it does not depend on texts."""
        return ByteTokenizer(specials)


@dataclass(frozen=True, kw_only=True)
class Words:
    """Text as the words of the training texts; digits and punctuation marks are tokens of their own."""

    max_size: Count | None = None
    """Maximum number of words, the most frequent; none for all."""
    min_count: Count = 1
    """Minimum number of occurrences of a word."""

    def fit(self, texts: Iterable[str], specials: Sequence[str] = SPECIALS) -> WordTokenizer:
        """The tokenizer of a collection of texts, with further special tokens.

        Raises:
            UserError: there is no word in them.
        """
        counts = Counter(word for text in texts for word in _words(text))
        frequent = [(word, n) for word, n in counts.items() if n >= self.min_count]
        frequent.sort(key=lambda pair: (-pair[1], pair[0]))
        words = tuple(word for word, _ in frequent[: self.max_size])
        if not words:
            raise UserError(
                f"no word occurs {self.min_count} times in the texts of the training split: provide texts, or lower "
                "the minimum number of occurrences"
            )
        return WordTokenizer(words, specials)


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The tokenizer of a published model, from a folder in the Hub's layout (``tokenizer.json`` or
    ``tokenizer.model``)."""

    folder: str
    """Path of the folder."""

    def fit(self, texts: Iterable[str], specials: Sequence[str] = SPECIALS) -> HubTokenizer:
        """The tokenizer, with further special tokens; it does not depend on texts.

        Raises:
            UserError: the folder holds no tokenizer, or ``transformers`` is not installed.
        """
        return HubTokenizer(Path(self.folder).expanduser(), specials)


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The tokenizer that another run's texts were read with, from its folder."""

    folder: str
    """Path of the run's folder."""

    def fit(self, texts: Iterable[str], specials: Sequence[str] = SPECIALS) -> TextTokenizer:
        """The tokenizer, with the special tokens that it was saved with; it does not depend on texts.

        Raises:
            UserError: the folder holds none, or its file is damaged.
        """
        return open_tokenizer(Path(self.folder).expanduser())


TextTokenizerConfig = Bytes | Words | Pretrained | Saved


def tokenizer_named(name: str) -> TextTokenizerConfig:
    """The configuration that a name or a folder stands for: ``words``, ``bytes``, that of a run or of a model.

    Raises:
        UserError: there is no such folder.
    """
    if name in (known := {"words": Words, "bytes": Bytes}):
        return known[name]()
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no text tokenizer {name!r}: use words, bytes, or the folder of a run or of a published model"
        )
    return Saved(folder=name) if (folder / FILE).exists() else Pretrained(folder=name)


def open_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer that was saved into ``folder``.

    Raises:
        UserError: there is none, or its file is damaged.
    """
    path = folder / FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        kind, specials = about["kind"], tuple(about["specials"])
        if kind == "bytes":
            return ByteTokenizer(specials)
        if kind == "words":
            return WordTokenizer(tuple(about["words"]), specials)
        if kind == "pretrained":
            return HubTokenizer(folder / FOLDER, specials)
    except FileNotFoundError:
        raise UserError(f"{folder} holds no text tokenizer ({FILE})") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    raise UserError(f"{path} is of kind {kind!r}: expected 'bytes', 'words' or 'pretrained'")


class _OwnTokenizer:
    """What the tokenizers of bytes and of words share: special tokens first, then ``ordinary`` ids.

    Two with the same ids are equal, so that sources that were read with them mix.
    """

    kind: str
    start: int | None
    mask: int | None = None

    def __init__(self, specials: Sequence[str], ordinary: int) -> None:
        names = dict.fromkeys((PAD, START, END, UNKNOWN, *specials))
        self._specials = {name: i for i, name in enumerate(names)}
        self._names = tuple(names)
        self.size = len(names) + ordinary
        self.pad, self.start, self.end = (self._specials[name] for name in (PAD, START, END))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OwnTokenizer) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"{self.size} {self.kind}"

    def _identity(self) -> tuple[Any, ...]:
        return self.kind, self._names, *self._about().values()

    def special(self, name: str) -> int:
        """The id of a special token.

        Raises:
            UserError: there is none of this name.
        """
        return _special(self._specials, name)

    def save(self, folder: Path) -> None:
        """Write the tokenizer into a folder."""
        write_json({"kind": self.kind, "specials": self._names, **self._about()}, folder / FILE)

    def _about(self) -> dict[str, Any]:
        return {}

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        """Ids as integers.

        Raises:
            UserError: one of them is none of this tokenizer's.
        """
        for i in map(int, ids):
            if not 0 <= i < self.size:
                raise UserError(
                    f"there is no token {i}: this tokenizer has the ids 0 to {self.size - 1} ({self.kind}), and the "
                    "text seems to be written with another one"
                )
            yield i


class ByteTokenizer(_OwnTokenizer):
    """Text as the bytes of its UTF-8 form, after the special tokens."""

    kind = "bytes"

    def __init__(self, specials: Sequence[str] = SPECIALS) -> None:
        super().__init__(specials, 256)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        return [len(self._names) + byte for byte in text.encode("utf-8", errors="replace")]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of ids; bytes that are not UTF-8 become replacement characters.

        Raises:
            UserError: an id is none of this tokenizer's.
        """
        text = b"".join(self._bytes(i, specials) for i in self._checked(ids))
        return text.decode("utf-8", errors="replace")

    def _bytes(self, i: int, specials: bool) -> bytes:
        first = len(self._names)
        if i >= first:
            return bytes((i - first,))
        return self._names[i].encode() if specials else b""


class WordTokenizer(_OwnTokenizer):
    """Text as words, after the special tokens; a word keeps the space before it.

    Decoding gives the text back with single spaces, in Unicode's composed form (NFC); words that are not in the
    vocabulary become ``<unk>``.
    """

    kind = "words"

    def __init__(self, words: Sequence[str], specials: Sequence[str] = SPECIALS) -> None:
        super().__init__(specials, len(words))
        self._words = tuple(words)
        self._ids = {word: len(self._names) + i for i, word in enumerate(words)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        unknown = self._specials[UNKNOWN]
        return [self._ids.get(word, unknown) for word in _words(text)]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of ids.

        Raises:
            UserError: an id is none of this tokenizer's.
        """
        return "".join(self._word(i, specials) for i in self._checked(ids)).removeprefix(" ")

    def _word(self, i: int, specials: bool) -> str:
        first = len(self._names)
        if i >= first:
            return self._words[i - first]
        return self._names[i] if specials or self._names[i] == UNKNOWN else ""

    def _about(self) -> dict[str, Any]:
        return {"words": self._words}


class HubTokenizer:
    """The tokenizer of a published model, with special tokens added after its own where it lacks them.

    Ids of added tokens may lie outside the model's table of embeddings: a model that reads a video at ``<video>``
    replaces that id before it reads the table.
    """

    def __init__(self, folder: Path, specials: Sequence[str] = SPECIALS) -> None:
        self.hub = _open_hub(folder)
        """The tokenizer of ``transformers``, with the chat template of the model."""
        self._added = tuple(specials)
        # BERT's texts begin with its token of a class, and end with that of a separation.
        self.start = self.hub.cls_token_id if self.hub.bos_token_id is None else self.hub.bos_token_id
        end = self.hub.sep_token_id if self.hub.eos_token_id is None else self.hub.eos_token_id
        if end is None:
            raise UserError(f"the tokenizer of {folder} has no end of text (eos_token): add it to its configuration")
        self.hub.add_tokens(list(specials), special_tokens=True)
        self.size = 1 + max(self.hub.get_vocab().values())
        self.end: int = end
        self.mask = self.hub.mask_token_id
        self.pad = self.end if self.hub.pad_token_id is None else self.hub.pad_token_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HubTokenizer) and self.hub.get_vocab() == other.hub.get_vocab()

    def __hash__(self) -> int:
        return hash(self.size)

    def __repr__(self) -> str:
        return f"{self.size} tokens of {self.hub.name_or_path}"

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        ids: list[int] = self.hub(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of ids."""
        return self.hub.decode([int(i) for i in ids], skip_special_tokens=not specials)

    def special(self, name: str) -> int:
        """The id of a special token.

        Raises:
            UserError: there is none of this name.
        """
        ids = {str(token): i for i, token in self.hub.added_tokens_decoder.items()}
        return _special(ids | dict(zip(self.hub.all_special_tokens, self.hub.all_special_ids, strict=True)), name)

    def save(self, folder: Path) -> None:
        """Write the tokenizer into a folder: copies of its files and the names of special tokens."""
        self.hub.save_pretrained(folder / FOLDER)
        write_json({"kind": "pretrained", "specials": self._added}, folder / FILE)


def _open_hub(folder: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise UserError(
            "the tokenizers of published models need transformers: pip install 'filmstrip[language]'"
        ) from None
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a published tokenizer (tokenizer.json)")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds, by what is missing or damaged
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{folder} holds no tokenizer that can be read: {reason}") from None


def _special(ids: dict[str, int], name: str) -> int:
    if name not in ids:
        raise UserError(f"there is no special token {name!r}; those of this tokenizer are {', '.join(sorted(ids))}")
    return ids[name]


_WORD = re.compile(r" ?(?:[^\W\d_]+|\d|[^\w\s]|_)")


def _words(text: str) -> list[str]:
    """Words, digits and marks of a text, each with the space before it; the first word as after a space."""
    return _WORD.findall(" " + " ".join(unicodedata.normalize("NFC", text).split()))
